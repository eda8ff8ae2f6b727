//! Makes the linker take libseccomp's static archive, so that the binary needs no shared library.
//!
//! `libseccomp-sys` asks for `-lseccomp`, which the linker resolves to the first match in its search
//! path. A directory that holds nothing but the archive, put before the system's, decides that match.
//! Where there is no archive (or `LIBSECCOMP_LINK_TYPE` is set by hand) the default linking stays.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBSECCOMP_LINK_TYPE");
    println!("cargo:rerun-if-env-changed=CC");
    if std::env::var_os("LIBSECCOMP_LINK_TYPE").is_some() {
        return;
    }
    let (Some(archive), Some(out)) = (find_archive(), std::env::var_os("OUT_DIR")) else {
        println!(
            "cargo:warning=no static libseccomp found (install libseccomp-dev): linking the shared library"
        );
        return;
    };
    let directory = Path::new(&out).join("static");
    let copied = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::copy(&archive, directory.join("libseccomp.a")));
    match copied {
        Ok(_) => println!("cargo:rustc-link-search=native={}", directory.display()),
        Err(error) => println!("cargo:warning=cannot copy {}: {error}", archive.display()),
    }
}

/// Asks the C compiler, which knows the multi-arch directories, where the archive is.
fn find_archive() -> Option<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let output = Command::new(compiler).arg("-print-file-name=libseccomp.a").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path).filter(|path| path.exists())
}
