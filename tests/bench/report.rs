//! What was measured: as text, as JSON, as a picture, and in `docs/benchmark.md`.

use crate::support::project;
use std::fmt::Write;
use std::fs;

/// Where the page's own words end.
const MARK: &str = "<!-- From here on `PAM_TOTP_WRITE=1 make bench` writes. -->\n";

/// A table, which is printed as soon as it is added.
pub struct Table {
    title: String,
    about: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, about: &str, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Self { title: title.to_owned(), about: about.to_owned(), columns, rows: Vec::new() }
    }

    pub fn row(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.columns.len());
        self.rows.push(row);
    }

    /// As Markdown, of which the source is a table too.
    fn text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().chain([&self.columns]).map(|row| row[at].chars().count());
            cells.max().unwrap_or(0)
        };
        // What all begins with a number, or with nothing, is one.
        let is_number = |at: usize| {
            self.rows
                .iter()
                .all(|row| row[at].is_empty() || row[at].starts_with(|c: char| c.is_ascii_digit() || c == '-'))
        };
        let line = |row: &[String]| {
            let cells = row.iter().enumerate().map(|(at, cell)| match (is_number(at), width(at)) {
                (true, width) => format!(" {cell:>width$} "),
                (false, width) => format!(" {cell:width$} "),
            });
            format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
        };
        let rule: Vec<String> = (0..self.columns.len())
            .map(|at| match (is_number(at), "-".repeat(width(at) + 1)) {
                (true, dashes) => format!("{dashes}:"),
                (false, dashes) => format!("{dashes}-"),
            })
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        let about = if self.about.is_empty() { String::new() } else { format!("{}\n\n", self.about) };
        format!("\n## {}\n\n{about}{}|{}|\n{rows}", self.title, line(&self.columns), rule.join("|"))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "title": self.title, "about": self.about, "columns": self.columns, "rows": self.rows })
    }
}

/// What was wanted, and what there is.
pub struct Goal {
    name: String,
    value: f64,
    most: f64,
}

impl Goal {
    pub fn at_most(name: &str, value: f64, most: f64) -> Self {
        Self { name: name.to_owned(), value, most }
    }

    fn row(&self) -> Vec<String> {
        let number = |number: f64| if self.most < 10.0 { format!("{number:.2}") } else { format!("{number:.0}") };
        let word = if self.value <= self.most { "met" } else { "missed" };
        vec![self.name.clone(), number(self.value), number(self.most), word.to_owned()]
    }
}

/// A bar of the picture: 10 %, median, 90 %.
struct Bar {
    group: String,
    name: String,
    at: [f64; 3],
}

#[derive(Default)]
pub struct Report {
    text: String,
    tables: Vec<Table>,
    goals: Vec<Goal>,
    bars: Vec<Bar>,
}

impl Report {
    pub fn say(&mut self, text: &str) {
        println!("\n{text}");
        let _ = writeln!(self.text, "\n{text}");
    }

    pub fn add(&mut self, table: Table) {
        let text = table.text();
        print!("{text}");
        self.text += &text;
        self.tables.push(table);
    }

    pub fn goal(&mut self, goal: Goal) {
        self.goals.push(goal);
    }

    pub fn bar(&mut self, group: &str, name: &str, at: [f64; 3]) {
        self.bars.push(Bar { group: group.to_owned(), name: name.to_owned(), at });
    }

    pub fn print_goals(&mut self) {
        if self.goals.is_empty() {
            return;
        }
        let mut table = Table::new("Goals", "", &["", "measured", "at most", ""]);
        self.goals.iter().for_each(|goal| table.row(goal.row()));
        self.add(table);
    }

    /// The goals, and all of it into files.
    pub fn finish(mut self) {
        self.print_goals();
        let directory = project().join("target/bench");
        fs::create_dir_all(&directory).unwrap();
        let tables: Vec<_> = self.tables.iter().map(Table::json).collect();
        fs::write(directory.join("table.md"), self.text.trim_start()).unwrap();
        fs::write(directory.join("results.json"), serde_json::to_string_pretty(&tables).unwrap()).unwrap();
        fs::write(directory.join("plot.svg"), picture(&self.bars)).unwrap();
        println!("\nIn {}: table.md, results.json, plot.svg", directory.display());
        if std::env::var_os("PAM_TOTP_WRITE").is_some_and(|value| value == "1") {
            let path = project().join("docs/benchmark.md");
            let page = fs::read_to_string(&path).unwrap();
            let (words, _) = page.split_once(MARK).expect("the mark behind the page's own words");
            fs::write(path, format!("{words}{MARK}{}", self.text)).unwrap();
        }
    }
}

/// A bar a case, one group below the other, all to one scale.
fn picture(bars: &[Bar]) -> String {
    const LEFT: f64 = 200.0;
    const WIDTH: f64 = 560.0;
    const LINE: f64 = 18.0;
    let longest = bars.iter().map(|bar| bar.at[1]).fold(1.0, f64::max) * 1.15;
    let x = |time: f64| LEFT + WIDTH * (time / longest).min(1.0);
    let (mut body, mut y, mut group) = (String::new(), 24.0, "");
    for Bar { group: of, name, at: [low, median, high] } in bars {
        if of != group {
            group = of;
            y += LINE;
            let _ = writeln!(body, "<text x=\"8\" y=\"{y}\" font-weight=\"bold\">{group}</text>");
            y += LINE;
        }
        let (top, middle, end) = (y - 12.0, y - 5.0, x(*median));
        let colour = if name.starts_with("pam_totp") { "#3b6ea8" } else { "#9aa3ad" };
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\
             <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"#222\"/><text x=\"{:.1}\" y=\"{y}\">{median:.0}</text>",
            LEFT - 8.0,
            end - LEFT,
            x(*low),
            x(*high),
            x(*high).max(end) + 6.0,
        );
        y += LINE;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 820 {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"820\" height=\"{y}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"20\">One login, microseconds: median, and from 10 % to 90 %</text>\n{body}</svg>\n"
    )
}

/// The value that so many percent do not exceed.
pub fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// The machine, in a few words.
pub fn host() -> String {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().to_owned();
        value.trim_matches([' ', '\t', ':', '=', '"']).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let [processor, system] = [line("/proc/cpuinfo", "model name"), line("/etc/os-release", "PRETTY_NAME")];
    format!("{system}, Linux {}, {cores} processors ({processor})", kernel.trim())
}
