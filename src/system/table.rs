//! A table that processes share: a file of fixed size, mapped, and changed by atomic operations alone. There is no lock that
//! a stopped process could keep, and no block to be found on a full disk.

use super::files::{FileError, Problem};
use super::private::Directory;
use super::signals::without_sigxfsz;
use super::{Errno, last_error, random};
use rustix::fs::{FallocateFlags, Stat, fallocate};
use std::ffi::c_void;
use std::fs::File;
use std::io::Write;
use std::ops::{Deref, Range};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
/// How often a file that is no table is put aside before we give up.
const TRIES: usize = 4;

/// A mapped table.
pub struct Table {
    words: NonNull<AtomicU64>,
    length: usize,
}

impl Table {
    /// Opens the table `name` of `length` words; makes it, beginning with `header` and 0 from there on, where it is
    /// missing or where `is_good` does not know it. The second value says whether it replaced something.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(
        directory: &Directory,
        name: &str,
        length: usize,
        header: impl Fn() -> Result<Vec<u64>, Errno>,
        is_good: impl Fn(&[AtomicU64]) -> bool,
    ) -> Result<(Self, bool), FileError> {
        let failed = |call, error| directory.file_error(name, Problem::Failed(call, error));
        let mut replaced = false;
        for _ in 0..TRIES {
            let Some((file, stat)) = directory.open_file(name)? else {
                let header = header().map_err(|error| failed("getrandom", error))?;
                make(directory, name, length, &header).map_err(|error| failed("create", error))?;
                continue;
            };
            if usize::try_from(stat.st_size).is_ok_and(|size| Some(size) == length.checked_mul(WORD)) {
                let table = Self::map(&file, length).map_err(|error| failed("mmap", error))?;
                if is_good(&table) {
                    return Ok((table, replaced));
                }
            }
            // No table of ours: cut short, or garbage. What it counted is lost; what it would allow is nothing.
            replaced = true;
            put_aside(directory, name, &stat).map_err(|error| failed("rename", error))?;
        }
        Err(directory.file_error(name, Problem::Changed))
    }

    fn map(file: &OwnedFd, length: usize) -> Result<Self, Errno> {
        let bytes = length.saturating_mul(WORD);
        // SAFETY: a new mapping at a place of the kernel's choice; the file is as long as that.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(last_error());
        }
        // What a login needs are a few pages here and there: the kernel need not read, and keep in one piece, what lies
        // around them. Where it does not take the advice, nothing is lost but time.
        // SAFETY: the mapping from above.
        unsafe { libc::madvise(start, bytes, libc::MADV_RANDOM) };
        NonNull::new(start.cast()).map(|words| Self { words, length }).ok_or(Errno::NOMEM)
    }

    /// Makes these words writable now, with an error where a first write would be a signal that kills the host: a disk that
    /// cannot be read, or one that is full and copies on write.
    ///
    /// # Errors
    /// As madvise(2) with MADV_POPULATE_WRITE.
    pub fn prepare(&self, words: Range<usize>) -> Result<(), Errno> {
        let range = words.start.saturating_mul(WORD)..words.end.min(self.length).saturating_mul(WORD);
        let start = range.start & !page_size().saturating_sub(1);
        let length = range.end.saturating_sub(start);
        // SAFETY: inside the mapping, which begins at a page.
        let result = unsafe {
            libc::madvise(self.words.as_ptr().byte_add(start).cast::<c_void>(), length, libc::MADV_POPULATE_WRITE)
        };
        match if result == 0 { None } else { Some(last_error()) } {
            // Before Linux 5.14 there is no such advice.
            None | Some(Errno::INVAL) => Ok(()),
            Some(error) => Err(error),
        }
    }
}

impl Deref for Table {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped until this value is dropped; others change the words, as atomics allow.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.length) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing borrows it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.length.saturating_mul(WORD)) };
    }
}

fn page_size() -> usize {
    // SAFETY: takes a number.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Makes a whole table under a name of its own, then gives it the right one, unless another process was faster.
fn make(directory: &Directory, name: &str, length: usize, header: &[u64]) -> Result<(), Errno> {
    let temporary = format!("{name}{}", random::suffix()?);
    let file = File::from(directory.create(&temporary)?);
    let made = without_sigxfsz(|| fill(file, length, header)).and_then(|()| match directory.link(&temporary, name) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    });
    directory.remove(&temporary)?;
    made
}

/// Every block is written now, so that none has to be found later.
fn fill(mut file: File, length: usize, header: &[u64]) -> Result<(), Errno> {
    let size = length.saturating_mul(WORD);
    match fallocate(&file, FallocateFlags::empty(), 0, u64::try_from(size).unwrap_or(u64::MAX)) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(error) => return Err(error),
    }
    let mut content = vec![0; size];
    for (place, word) in content.chunks_exact_mut(WORD).zip(header) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    // Page by page: what is written at once the kernel keeps in one piece, all of which becomes dirty with a word of it.
    let mut pages = content.chunks(page_size());
    pages.try_for_each(|page| file.write_all(page)).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Removes the file that was seen. Another process may have put a good one in its place meanwhile: that one goes back.
fn put_aside(directory: &Directory, name: &str, seen: &Stat) -> Result<(), Errno> {
    let aside = format!("{name}{}", random::suffix()?);
    match directory.rename(name, &aside) {
        Err(Errno::NOENT) => return Ok(()),
        result => result?,
    }
    let moved = directory.stat(&aside)?;
    if (moved.st_dev, moved.st_ino) != (seen.st_dev, seen.st_ino) {
        // Unless there is a third one by now.
        let _ = directory.link(&aside, name);
    }
    directory.remove(&aside)
}
