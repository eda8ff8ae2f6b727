//! What goes into a layer.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Scratch, archive, can_mount, dir, file, tar_names};

#[test]
fn only_changes_and_the_directories_above_them() {
    if !can_mount("only_changes_and_the_directories_above_them") {
        return;
    }
    let scratch = Scratch::new();
    let base = scratch.commit(None, |root| {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("etc/conf")).unwrap();
        fs::create_dir(root.join("touched")).unwrap();
        for name in ["usr/bin/a", "usr/bin/b", "etc/conf/x", "etc/conf/y", "gone", "touched/z"] {
            fs::write(root.join(name), name).unwrap();
        }
    });
    let top = scratch.commit(Some(base), |root| {
        fs::write(root.join("usr/bin/c"), "c").unwrap();
        fs::remove_file(root.join("usr/bin/a")).unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        // Copied up and as before: nothing to record.
        fs::write(root.join("touched/tmp"), "").unwrap();
        fs::remove_file(root.join("touched/tmp")).unwrap();
        // A directory made anew in place of another: what is gone is said, file by file.
        fs::remove_dir_all(root.join("etc/conf")).unwrap();
        fs::create_dir(root.join("etc/conf")).unwrap();
        fs::write(root.join("etc/conf/y"), "new y").unwrap();
        // A new directory, which overlayfs marks opaque for no reason.
        fs::create_dir(root.join("opt")).unwrap();
        fs::write(root.join("opt/o"), "o").unwrap();
    });
    assert_eq!(
        tar_names(&scratch.diff(top)),
        [
            "etc/",
            "etc/conf/",
            "etc/conf/.wh.x",
            "etc/conf/y",
            ".wh.gone",
            "opt/",
            "opt/o",
            "usr/",
            "usr/bin/",
            "usr/bin/.wh.a",
            "usr/bin/c",
        ]
    );
    let above = scratch.commit(Some(top), |root| {
        fs::set_permissions(root.join("opt"), PermissionsExt::from_mode(0o700)).unwrap();
    });
    assert_eq!(tar_names(&scratch.diff(above)), ["opt/"]);
}

#[test]
fn files_touched_without_change_are_left_out() {
    if !can_mount("files_touched_without_change_are_left_out") {
        return;
    }
    let scratch = Scratch::new();
    let id = scratch.image(&[archive(&[
        dir("d"),
        file("d/same", "same"),
        file("d/other", "1234"),
        file("d/mode", "m"),
    ])]);
    scratch.store.snapshots().unpack_chain(id, &Default::default(), &scratch.lease).unwrap();
    let top = scratch.commit(Some(id), |root| {
        for name in ["d/same", "d/other", "d/mode"] {
            let modified = fs::metadata(root.join(name)).unwrap().modified().unwrap();
            let content = if name == "d/other" {
                "4321".to_owned()
            } else {
                fs::read_to_string(root.join(name)).unwrap()
            };
            fs::write(root.join(name), content).unwrap();
            fs::File::options().write(true).open(root.join(name)).unwrap().set_modified(modified).unwrap();
        }
        fs::set_permissions(root.join("d/mode"), PermissionsExt::from_mode(0o600)).unwrap();
    });
    assert_eq!(tar_names(&scratch.diff(top)), ["d/", "d/mode", "d/other"]);
}

#[test]
fn a_file_in_place_of_a_directory_and_back() {
    if !can_mount("a_file_in_place_of_a_directory_and_back") {
        return;
    }
    let scratch = Scratch::new();
    let base = scratch.commit(None, |root| {
        fs::create_dir(root.join("d")).unwrap();
        fs::write(root.join("d/x"), "x").unwrap();
        fs::write(root.join("f"), "f").unwrap();
    });
    let top = scratch.commit(Some(base), |root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d"), "now a file").unwrap();
        fs::remove_file(root.join("f")).unwrap();
        fs::create_dir(root.join("f")).unwrap();
    });
    assert_eq!(tar_names(&scratch.diff(top)), ["d", "f/"]);
}
