//! Stamps the extension with a digest of the sources it is built from (`SOURCE_DIGEST`); `cloister/_stale.py` computes the same.
//!
//! CRC-32 (ISO-HDLC) over path, length and content of every file in order: it tells builds apart, it proves nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    // Cargo runs this in the package's directory; nothing absolute is kept, so that a target directory may serve several trees.
    let root = Path::new("../..");
    let mut files = vec![PathBuf::from("Cargo.lock")];
    collect(root, Path::new("crates"), &mut files)?;
    files.sort_by_key(|path| path.to_string_lossy().into_owned());
    let mut sum = Crc(!0);
    for path in &files {
        let content = fs::read(root.join(path))?;
        sum.update(format!("{}\n{}\n", path.display(), content.len()).as_bytes());
        sum.update(&content);
    }
    println!("cargo::rustc-env=CLOISTER_SOURCE_DIGEST={}-{:08x}", files.len(), !sum.0);
    println!("cargo::rerun-if-changed=../../crates");
    println!("cargo::rerun-if-changed=../../Cargo.lock");
    Ok(())
}

fn collect(root: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

struct Crc(u32);

impl Crc {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                self.0 = (self.0 >> 1) ^ (0xedb8_8320 & (self.0 & 1).wrapping_neg());
            }
        }
    }
}
