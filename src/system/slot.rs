//! A file of a fixed length that is replaced without a free block on the disk, and without a moment at which it is neither
//! the old one nor the new one.
//!
//! Beside it lies a sibling of the same length, which is never read. The next text is written over that, and when it is on
//! disk the two exchange their names (renameat2(2)); when the directory is on disk too, it is done. File systems that copy
//! on write (btrfs) need free blocks all the same.
//!
//! Whoever is killed between the exchange and the last step leaves names that a power cut could swap back; what is written
//! over the sibling then might be what has the name on disk. So the last byte of a file says whether it is settled, and
//! nobody writes over the sibling of one that is not before the directory is on disk.

use super::Errno;
use super::files::{FileError, Problem};
use super::private::Directory;
use super::signals::without_sigxfsz;
use crate::secret::Secret;
use rustix::fs::{Stat, fdatasync};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Mode bits that nobody but root may have.
const OTHERS: u32 = 0o077;
/// How often a file that changes while it is read is read anew.
const LOOKS: usize = 100;

/// Where such a file is.
pub struct Slot {
    directory: Directory,
    name: String,
    length: usize,
    /// What the last byte is, once the file is settled.
    settled: u8,
}

/// What was read, and from which file.
pub struct Held<T> {
    /// What it means.
    pub value: T,
    text: Secret<Vec<u8>>,
    inode: u64,
    is_settled: bool,
}

impl<T> Held<T> {
    /// Whether its name is known to be on disk.
    pub const fn is_settled(&self) -> bool {
        self.is_settled
    }
}

/// Why nothing was read.
#[derive(Debug)]
pub enum Unread<E> {
    /// The file cannot be read.
    File(FileError),
    /// It does not mean anything.
    Text(E),
}

impl<E> From<FileError> for Unread<E> {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Slot {
    /// The file `name`, which has no `~` in it, of `length` bytes.
    pub const fn new(directory: Directory, name: String, length: usize, settled: u8) -> Self {
        Self { directory, name, length, settled }
    }

    /// The path, for messages.
    pub fn path(&self) -> PathBuf {
        self.directory.path(&self.name)
    }

    /// Whether anything has the name.
    ///
    /// # Errors
    /// Anything but plain absence.
    pub fn is_taken(&self) -> Result<bool, FileError> {
        match self.directory.stat(&self.name) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(self.failed("stat")(error)),
        }
    }

    /// Reads the file, without a lock: what is replaced meanwhile is read anew. `Ok(None)`: there is none. A text that was
    /// `known` to mean something means the same again.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn read<T, E>(
        &self,
        mut known: Option<Held<T>>,
        parse: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<Option<Held<T>>, Unread<E>> {
        let mut bad = None;
        for _ in 0..LOOKS {
            let Some((file, before)) = self.directory.open_file(&self.name)? else { return Ok(None) };
            if before.st_mode & OTHERS != 0 {
                return Err(self.error(Problem::Permissions(before.st_mode & 0o7777)).into());
            }
            let text = self.bytes(&File::from(file))?;
            let after = self.directory.stat(&self.name).map_err(self.failed("stat"))?;
            if !is_same(&before, &after) {
                continue;
            }
            let known = known.take().filter(|known| known.text.expose() == text.expose());
            match known.map_or_else(|| parse(text.expose()), |known| Ok(known.value)) {
                Ok(value) => {
                    let is_settled = text.expose().last() == Some(&self.settled);
                    return Ok(Some(Held { value, text, inode: before.st_ino, is_settled }));
                }
                // Perhaps it was written to between two ticks of the clock that times of files are taken from.
                Err(error) => bad = Some(error),
            }
        }
        Err(bad.map_or_else(|| Unread::File(self.error(Problem::Changed)), Unread::Text))
    }

    /// One byte more than there may be, so that a longer file is not taken for the right one.
    fn bytes(&self, file: &File) -> Result<Secret<Vec<u8>>, FileError> {
        let mut text = Vec::with_capacity(self.length.saturating_add(64));
        let most = u64::try_from(self.length).unwrap_or(u64::MAX).saturating_add(1);
        let result = file.take(most).read_to_end(&mut text);
        let text = Secret::new(text);
        result.map(|_| text).map_err(|error| self.io("read", &error))
    }

    /// Makes the file and its sibling; nothing may have the name. The caller holds the lock.
    ///
    /// # Errors
    /// [`FileError`]; with [`Problem::NotSynced`] the file is there.
    pub fn create(&self, text: &Secret<Vec<u8>>) -> Result<(), FileError> {
        let (new, sibling) = (self.unborn(), self.sibling());
        let made = self.write_new(&sibling, &self.blank()).and_then(|_| self.write_new(&new, text.expose()));
        // Unlike a rename, a link never replaces anything.
        let linked = made.and_then(|file| {
            self.directory.link(&new, &self.name).map_err(self.failed("link"))?;
            Ok(file)
        });
        let removed = self.directory.remove(&new).map_err(self.failed("unlink"));
        let file = linked?;
        removed?;
        self.finish(&file)
    }

    /// Puts a text in the place of the file that was read; `None`: of whatever is there. The caller holds the lock.
    ///
    /// # Errors
    /// [`FileError`]; with [`Problem::NotSynced`] the new text is in place. With any other the file is as it was.
    pub fn replace<T>(&self, held: Option<&Held<T>>, text: &Secret<Vec<u8>>) -> Result<(), FileError> {
        if held.is_none_or(|held| !held.is_settled) {
            self.sync()?;
        }
        let sibling = self.sibling();
        let file = match self.old_file()? {
            Some((file, stat)) if self.can_be_written_over(&stat, held) => {
                self.write(&file, text.expose())?;
                file
            }
            _ => self.write_new(&sibling, text.expose())?,
        };
        self.directory.exchange(&self.name, &sibling).map_err(self.failed("rename"))?;
        self.finish(&file)
    }

    /// The sibling. `None` also for a link, a FIFO or somebody else's file: where a record was replaced that was none, that
    /// is what has the name.
    fn old_file(&self) -> Result<Option<(File, Stat)>, FileError> {
        match self.directory.open_file(&self.sibling()) {
            Ok(file) => Ok(file.map(|(file, stat)| (File::from(file), stat))),
            Err(error) if matches!(error.problem, Problem::Failed(_, errno) if errno != Errno::LOOP) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What others can read must not become the file, and a file that has another name too is somebody's copy.
    fn can_be_written_over<T>(&self, stat: &Stat, held: Option<&Held<T>>) -> bool {
        let is_right = u64::try_from(stat.st_size).is_ok_and(|size| usize::try_from(size) == Ok(self.length));
        is_right
            && stat.st_mode & OTHERS == 0
            && stat.st_nlink == 1
            && held.is_none_or(|held| held.inode != stat.st_ino)
    }

    /// Writes over the sibling what was in the file until now, or takes its name away where that was none of ours. The caller
    /// holds the lock.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn forget_the_old(&self) -> Result<(), FileError> {
        match self.old_file()? {
            Some((file, _)) => self.write(&file, &self.blank())?,
            None => self.directory.remove(&self.sibling()).map_err(self.failed("unlink"))?,
        }
        // Whoever was killed in `create` has left the first text a second name.
        if let Some((file, stat)) = self.directory.open_file(&self.unborn())? {
            if self.directory.stat(&self.name).is_ok_and(|current| current.st_ino != stat.st_ino) {
                self.write(&File::from(file), &self.blank())?;
            }
            self.directory.remove(&self.unborn()).map_err(self.failed("unlink"))?;
        }
        Ok(())
    }

    /// Removes the file and its sibling, and writes over what was in them. Says whether there was one.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn remove(&self) -> Result<bool, FileError> {
        let names = [self.name.clone(), self.sibling(), self.unborn()];
        let open = |name: &String| self.directory.open_file(name).ok().flatten().map(|(file, _)| File::from(file));
        let files: Vec<File> = names.iter().filter_map(open).collect();
        let was_there = self.is_taken()?;
        for name in &names {
            self.directory.remove(name).map_err(self.failed("unlink"))?;
        }
        self.sync()?;
        files.iter().try_for_each(|file| self.write(file, &self.blank()))?;
        Ok(was_there)
    }

    fn sibling(&self) -> String {
        format!("{}~", self.name)
    }

    /// What a file is called until it has its name.
    fn unborn(&self) -> String {
        format!("{}~new", self.name)
    }

    fn blank(&self) -> Vec<u8> {
        vec![b'\n'; self.length]
    }

    /// A new file, in the place of what a killed program may have left there.
    fn write_new(&self, name: &str, text: &[u8]) -> Result<File, FileError> {
        self.directory.remove(name).map_err(self.failed("unlink"))?;
        let file = File::from(self.directory.create(name).map_err(self.failed("create"))?);
        self.write(&file, text)?;
        Ok(file)
    }

    fn write(&self, file: &File, text: &[u8]) -> Result<(), FileError> {
        without_sigxfsz(|| file.write_all_at(text, 0)).map_err(|error| self.io("write", &error))?;
        fdatasync(file).map_err(self.failed("fdatasync"))
    }

    /// The names go to the disk, and then the file says so.
    fn finish(&self, file: &File) -> Result<(), FileError> {
        self.sync()?;
        let last = u64::try_from(self.length).unwrap_or(u64::MAX).saturating_sub(1);
        // Where this fails the next one waits for the directory once more.
        let _ = without_sigxfsz(|| file.write_all_at(&[self.settled], last));
        Ok(())
    }

    fn sync(&self) -> Result<(), FileError> {
        self.directory.sync().map_err(|error| self.error(Problem::NotSynced(error)))
    }

    fn failed(&self, call: &'static str) -> impl FnOnce(Errno) -> FileError + '_ {
        move |error| self.error(Problem::Failed(call, error))
    }

    fn io(&self, call: &'static str, error: &std::io::Error) -> FileError {
        self.error(Problem::Failed(call, Errno::from_io_error(error).unwrap_or(Errno::IO)))
    }

    fn error(&self, problem: Problem) -> FileError {
        self.directory.file_error(&self.name, problem)
    }
}

/// Whether two looks saw the same file in the same state.
fn is_same(one: &Stat, other: &Stat) -> bool {
    let state = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec);
    state(one) == state(other)
}
