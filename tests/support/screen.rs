//! What a phone makes of a terminal: finds the QR code among the text, takes a picture of it, and has two programs read that
//! share no code, zbar and rqrr.

use super::{need, output_of};
use std::io::Write;
use std::process::Command;

/// What is drawn: half blocks, or ASCII with two columns a module.
const BLOCKS: &str = "█▀▄ ";
const ASCII: &str = "# ";
/// Lines that the smallest code has, 21 modules in half blocks.
const SMALLEST: usize = 11;
/// Pixels a module, and modules of ground around the code.
const SCALE: usize = 4;
const GROUND: usize = 8;

/// The text of the code on a dark terminal, where what is drawn is light.
pub fn scan(text: &str) -> String {
    read_by_both(text, true)
}

/// The text of the code on a light terminal, where what is drawn is dark.
pub fn scan_inverse(text: &str) -> String {
    read_by_both(text, false)
}

/// The lines of the code among others; none if there is no code.
pub fn code(text: &str) -> Vec<&str> {
    let lines: Vec<_> = text.lines().collect();
    let runs = lines.split(|line| !is_drawn(line, BLOCKS) && !is_drawn(line, ASCII));
    runs.max_by_key(|run| run.len()).filter(|run| run.len() >= SMALLEST).unwrap_or_default().to_vec()
}

/// The URI that is printed below a code.
pub fn uri(text: &str) -> String {
    let (_, rest) = text.split_once("URI: ").unwrap_or_else(|| panic!("no URI: {text}"));
    rest.lines().next().unwrap().trim().to_owned()
}

/// The text without what switches colours, and without the carriage returns of a terminal.
pub fn plain(text: &str) -> String {
    let text = text.replace('\r', "");
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').expect("a colour ends with m").1)
}

fn is_drawn(line: &str, cells: &str) -> bool {
    !line.trim().is_empty() && line.chars().all(|cell| cells.contains(cell))
}

fn read_by_both(text: &str, drawn_is_light: bool) -> String {
    let picture = Picture::of(&modules(text), drawn_is_light);
    let (zbar, rqrr) = (picture.read_by_zbar(), picture.read_by_rqrr());
    assert_eq!(zbar, rqrr, "zbar (left) and rqrr (right) disagree about\n{text}");
    zbar
}

/// Rows of modules, and which of them are drawn. Blanks at the ends of lines may be missing.
fn modules(text: &str) -> Vec<Vec<bool>> {
    let lines = code(text);
    assert!(!lines.is_empty(), "no QR code:\n{text}");
    let mut rows: Vec<Vec<bool>> = if lines.iter().all(|line| is_drawn(line, ASCII)) {
        lines.iter().map(|line| in_pairs(line)).collect()
    } else {
        let half = |line: &str, whole_or: char| line.chars().map(|cell| cell == '█' || cell == whole_or).collect();
        lines.iter().flat_map(|line| [half(line, '▀'), half(line, '▄')]).collect()
    };
    let width = rows.iter().map(Vec::len).max().unwrap();
    rows.iter_mut().for_each(|row| row.resize(width, false));
    rows
}

fn in_pairs(line: &str) -> Vec<bool> {
    let cells = line.as_bytes().chunks(2).map(|pair| match pair {
        b"##" => true,
        b"  " | b" " => false,
        _ => panic!("half a module: {line}"),
    });
    cells.collect()
}

/// Grey values, row by row.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Picture {
    fn of(rows: &[Vec<bool>], drawn_is_light: bool) -> Self {
        let span = |modules: usize| (modules + 2 * GROUND) * SCALE;
        let (width, height) = (span(rows[0].len()), span(rows.len()));
        let is_drawn = |x: usize, y: usize| {
            let (column, row) = ((x / SCALE).checked_sub(GROUND), (y / SCALE).checked_sub(GROUND));
            row.zip(column).and_then(|(row, column)| rows.get(row)?.get(column)).copied().unwrap_or(false)
        };
        let grey = |x, y| if is_drawn(x, y) == drawn_is_light { 255 } else { 0 };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| grey(x, y))).collect();
        Self { width, height, pixels }
    }

    fn read_by_zbar(&self) -> String {
        need("zbarimg", "zbar-tools");
        // A portable graymap.
        let mut file = tempfile::Builder::new().suffix(".pgm").tempfile().unwrap();
        file.write_all(format!("P5\n{} {}\n255\n", self.width, self.height).as_bytes()).unwrap();
        file.write_all(&self.pixels).unwrap();
        output_of(Command::new("zbarimg").args(["--quiet", "--raw"]).arg(file.path())).trim_end().to_owned()
    }

    fn read_by_rqrr(&self) -> String {
        let pixel = |x, y| self.pixels[y * self.width + x];
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(self.width, self.height, pixel);
        let codes = image.detect_grids();
        let texts: Vec<_> = codes.iter().map(|code| code.decode().map(|(_, text)| text)).collect();
        let [Ok(text)] = texts.as_slice() else { panic!("rqrr found {texts:?}") };
        text.clone()
    }
}
