//! A root directory that files are read below: `/`, or an image of another machine. Nothing outside of it is ever opened.

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Largest file that is read: the largest in a distribution's /etc/pam.d or /etc/ssh have a few thousand bytes.
const MAX_SIZE: u64 = 1 << 20;

/// Opening a FIFO or a terminal neither waits nor changes anything.
const HARMLESS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The directory, open.
pub(crate) struct Root {
    /// `None`: `/`, where every path is what it is for everybody else.
    image: Option<OwnedFd>,
    /// What files would say that are not written yet. `None`: the file is gone.
    instead: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// Why there is no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    Missing,
    Directory,
    /// A FIFO, a device or a socket: whoever reads it may wait for ever.
    NotAFile,
    /// More than a mebibyte.
    TooLarge,
    Failed(Errno),
}

impl fmt::Display for Unreadable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(out, "is not there"),
            Self::Directory => write!(out, "is a directory"),
            Self::NotAFile => write!(out, "is not a regular file"),
            Self::TooLarge => write!(out, "is larger than {MAX_SIZE} bytes"),
            Self::Failed(errno) => write!(out, "cannot be read: {}", io::Error::from(*errno)),
        }
    }
}

impl From<Errno> for Unreadable {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            errno => Self::Failed(errno),
        }
    }
}

impl Root {
    /// Opens the directory itself.
    pub(crate) fn open(path: &Path) -> Result<Self, Unreadable> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let image = if path == Path::new("/") { None } else { Some(openat(CWD, path, flags, Mode::empty())?) };
        Ok(Self { image, instead: BTreeMap::new() })
    }

    /// The same root once this file says that, or is gone. Nothing is written; what leads there by a link does not see it.
    pub(crate) fn with(mut self, path: &Path, content: Option<Vec<u8>>) -> Self {
        self.instead.insert(PathBuf::from("/").join(path), content);
        self
    }

    /// One more of it.
    pub(crate) fn again(&self) -> Result<Self, Unreadable> {
        let again = |descriptor: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(descriptor, 0);
        Ok(Self { image: self.image.as_ref().map(again).transpose()?, instead: self.instead.clone() })
    }

    /// A directory, open to be written to.
    pub(crate) fn directory(&self, path: &Path) -> Result<OwnedFd, Unreadable> {
        self.descriptor(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    /// Is it this machine's own?
    pub(crate) fn is_live(&self) -> bool {
        self.image.is_none()
    }

    /// Whose it is, who may do what with it, and what it is. Links are followed, as to read it.
    pub(crate) fn stat(&self, path: &Path) -> Result<Stat, Unreadable> {
        Ok(fstat(self.descriptor(path, OFlags::PATH | OFlags::CLOEXEC)?)?)
    }

    /// A regular file, open to be read.
    pub(crate) fn file(&self, path: &Path) -> Result<File, Unreadable> {
        let descriptor = self.descriptor(path, HARMLESS)?;
        match FileType::from_raw_mode(fstat(&descriptor)?.st_mode) {
            FileType::RegularFile => Ok(File::from(descriptor)),
            FileType::Directory => Err(Unreadable::Directory),
            _ => Err(Unreadable::NotAFile),
        }
    }

    /// The content of a regular file.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, Unreadable> {
        if let Some(content) = self.instead.get(&PathBuf::from("/").join(path)) {
            return content.clone().ok_or(Unreadable::Missing);
        }
        let mut content = Vec::new();
        // One more than may be: the file may be growing.
        let read = self.file(path)?.take(MAX_SIZE.saturating_add(1)).read_to_end(&mut content);
        match read.map(u64::try_from) {
            Ok(Ok(0..=MAX_SIZE)) => Ok(content),
            Ok(_) => Err(Unreadable::TooLarge),
            Err(error) => Err(Unreadable::Failed(Errno::from_io_error(&error).unwrap_or(Errno::IO))),
        }
    }

    /// The names in a directory, sorted.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<OsString>, Unreadable> {
        let directory = Dir::new(self.descriptor(path, HARMLESS | OFlags::DIRECTORY)?)?;
        let mut names = Vec::new();
        for entry in directory {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        for (file, content) in &self.instead {
            if let (Some(parent), Some(name)) = (file.parent(), file.file_name())
                && parent == PathBuf::from("/").join(path)
            {
                names.retain(|known| known != name);
                names.extend(content.as_ref().map(|_| name.to_owned()));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Is there such a directory?
    pub(crate) fn is_directory(&self, path: &Path) -> bool {
        self.descriptor(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC).is_ok()
    }

    /// `..` and links lead no higher than to the root, as in a chroot.
    fn descriptor(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Unreadable> {
        let path = PathBuf::from("/").join(path);
        let descriptor = match &self.image {
            None => openat(CWD, &path, flags, Mode::empty()),
            Some(root) => {
                let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                openat2(root, &path, flags, Mode::empty(), inside)
            }
        };
        // Nobody listens at a socket that is opened, and nobody reads a FIFO that is opened to be written.
        descriptor.map_err(|errno| if errno == Errno::NXIO { Unreadable::NotAFile } else { errno.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::mknodat;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::create_dir_all(image.join("etc/pam.d")).unwrap();
        fs::write(directory.path().join("outside"), "outside").unwrap();
        fs::write(image.join("etc/file"), b"inside\xff").unwrap();
        let root = Root::open(&image).unwrap();
        (directory, root)
    }

    fn read(root: &Root, path: &str) -> Result<Vec<u8>, Unreadable> {
        root.read(Path::new(path))
    }

    #[test]
    fn links_and_dots_do_not_lead_out_of_the_root() {
        let (directory, root) = root();
        let link = |to: &Path, name: &str| symlink(to, directory.path().join("image/etc").join(name)).unwrap();
        link(Path::new("/etc/file"), "absolute");
        link(Path::new("../../../../etc/file"), "dots");
        link(&directory.path().join("outside"), "out");
        link(Path::new("../../outside"), "up");
        link(Path::new("/proc/self/root/etc/passwd"), "magic");
        for path in ["/etc/file", "etc/file", "/etc/absolute", "/etc/dots", "/../../etc/file"] {
            assert_eq!(read(&root, path), Ok(b"inside\xff".to_vec()), "{path}");
        }
        for path in ["/etc/out", "/etc/up", "/etc/magic", "/../outside", "/etc/file/below"] {
            assert_eq!(read(&root, path), Err(Unreadable::Missing), "{path}");
            assert_eq!(root.stat(Path::new(path)).err(), Some(Unreadable::Missing), "{path}");
        }
        let inode = |path| root.stat(Path::new(path)).unwrap().st_ino;
        assert_eq!(inode("/etc/absolute"), inode("/etc/file"));
    }

    #[test]
    fn what_is_not_written_yet_is_read_in_the_place_of_what_is_there() {
        let (directory, root) = root();
        let root = root.with(Path::new("/etc/file"), None).with(Path::new("etc/new"), Some(b"new".to_vec()));
        let root = root.again().unwrap();
        assert_eq!(read(&root, "/etc/file"), Err(Unreadable::Missing));
        assert_eq!(read(&root, "/etc/new"), Ok(b"new".to_vec()));
        assert_eq!(root.list(Path::new("/etc/")).unwrap(), ["new", "pam.d"]);
        assert!(directory.path().join("image/etc/file").exists() && !directory.path().join("image/etc/new").exists());
    }

    #[test]
    fn what_is_not_a_file_is_told_apart_and_nobody_waits() {
        let (directory, root) = root();
        let path = |name: &str| directory.path().join("image").join(name);
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let sizes = [("full", MAX_SIZE), ("large", MAX_SIZE + 1), ("endless", 1 << 40)];
        for (name, size) in sizes {
            File::create(path(name)).unwrap().set_len(size).unwrap();
        }
        assert!(root.stat(Path::new("/fifo")).is_ok());
        assert_eq!(read(&root, "/fifo"), Err(Unreadable::NotAFile));
        assert_eq!(read(&root, "/socket"), Err(Unreadable::NotAFile));
        assert_eq!(read(&root, "/etc"), Err(Unreadable::Directory));
        assert_eq!(read(&root, "/loop"), Err(Unreadable::Failed(Errno::LOOP)));
        assert_eq!(read(&root, "/full").map(|content| content.len()), Ok(1 << 20));
        assert_eq!(read(&root, "/large"), Err(Unreadable::TooLarge));
        assert_eq!(read(&root, "/endless"), Err(Unreadable::TooLarge));
    }

    #[test]
    fn a_directory_is_listed_in_order() {
        let (directory, root) = root();
        let pam_d = directory.path().join("image/etc/pam.d");
        for name in ["su", "login", "sshd"] {
            fs::write(pam_d.join(name), "").unwrap();
        }
        assert_eq!(root.list(Path::new("/etc/pam.d")).unwrap(), ["login", "sshd", "su"]);
        assert_eq!(root.list(Path::new("/etc/file")), Err(Unreadable::Missing));
        assert!(root.is_directory(Path::new("/etc/pam.d")) && !root.is_directory(Path::new("/etc/file")));
    }
}
