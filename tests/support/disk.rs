//! The file system that a root-only store lies on: one of its own for each, which can lose its power, and be full.

use super::machine::Machine;
use super::{need, output_of};
use std::path::PathBuf;
use std::process::Command;

/// Where it is mounted in the machine.
pub const STATE: &str = "/run/state";
/// Where the images are: in memory, as nothing is about how long a disk takes.
const IMAGES: &str = "/run/images";

/// What is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    /// A tmpfs, which has no image.
    Memory,
}

impl FileSystem {
    /// Makes an image about as small as this kind can be. It has holes wherever nothing is.
    fn make(self) -> &'static str {
        match self {
            Self::Ext4 => "truncate -s 32M live && mkfs.ext4 -q -F live",
            Self::Xfs => "truncate -s 300M live && mkfs.xfs -q live",
            Self::Btrfs => "truncate -s 128M live && mkfs.btrfs -q --mixed live",
            Self::Memory => ":",
        }
    }

    fn mount(self) -> String {
        let (options, what) = match self {
            // Nothing gets to the disk because some time has passed: a copy has what was waited for, and no more.
            Self::Ext4 => ("loop,commit=300", "live"),
            // A copy has the same UUID as what it is a copy of.
            Self::Xfs => ("loop,nouuid", "live"),
            Self::Btrfs => ("loop,commit=300", "live"),
            Self::Memory => return format!("mount -t tmpfs -o mode=0755,size=16m tmpfs {STATE}"),
        };
        format!("mount -o {options} {what} {STATE}")
    }
}

/// It, mounted at [`STATE`].
pub struct Disk<'a> {
    pub machine: &'a Machine,
    pub kind: FileSystem,
}

impl<'a> Disk<'a> {
    pub fn new(machine: &'a Machine, kind: FileSystem) -> Self {
        for (program, package) in [("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")]
        {
            need(program, package);
        }
        let disk = Self { machine, kind };
        // The machine's /dev has no loop devices.
        disk.shell(
            "[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
             for n in $(seq 0 63); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done",
        );
        disk.shell(&format!("mkdir -p {STATE} {IMAGES}; umount -q {STATE} || :; rm -f {IMAGES}/*"));
        disk.shell(&format!("{} && {}", kind.make(), kind.mount()));
        disk
    }

    /// Where the device's content is, as the test sees it.
    pub fn image(&self) -> PathBuf {
        self.machine.path(&format!("{IMAGES}/live"))
    }

    /// Puts aside what is there now.
    pub fn save(&self) {
        self.shell(&format!("umount {STATE} && cp --sparse=always live saved && {}", self.kind.mount()));
    }

    /// Goes back to what was put aside.
    pub fn restore(&self) {
        self.shell(&format!("umount {STATE} && rm live && cp --sparse=always saved live && {}", self.kind.mount()));
    }

    /// The power fails, and comes back: what is mounted from here on is the device as it is at this moment, without what
    /// was in memory alone.
    pub fn crash(&self) {
        self.shell(&format!("cp --sparse=always live copy && umount {STATE} && mv copy live && {}", self.kind.mount()));
    }

    /// Fills it to its last block, root's reserve included, and takes all room for names too.
    pub fn fill(&self) {
        self.shell(&format!(
            "cd {STATE} && mkdir fill
             for size in 1M 4k 512; do dd if=/dev/zero of=fill/$size bs=$size 2>fill.log && exit 1; done
             sync -f . || :
             for n in $(seq 5000); do (: >fill/$n && echo x >>fill/$n) 2>/dev/null || break; done
             sync -f . || :
             dd if=/dev/zero of=fill/rest bs=512 2>/dev/null && exit 1 || :"
        ));
    }

    /// Makes room again.
    pub fn empty(&self) {
        self.shell(&format!("rm -rf {STATE}/fill {STATE}/fill.log && sync -f {STATE}"));
    }

    /// Runs a script in the machine, in the directory of the images.
    pub fn shell(&self, script: &str) -> String {
        output_of(self.command("sh").args(["-ec", &format!("cd {IMAGES} 2>/dev/null || :\n{script}")]))
    }

    fn command(&self, program: &str) -> Command {
        self.machine.command(program)
    }
}
