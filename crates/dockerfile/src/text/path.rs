//! Paths inside images, by the rules of the image's operating system.
//!
//! Nothing here looks at a disk. Windows paths may have a drive letter (only `C:`) and back-slashes; past
//! this module every path has slashes and no drive letter.

pub(crate) use slipway_model::clean_path as clean;

/// Joins and cleans; empty parts are left out.
pub(crate) fn join(parent: &str, path: &str) -> String {
    match (parent, path) {
        ("", "") => String::new(),
        ("", path) => clean(path),
        (parent, "") => clean(parent),
        (parent, path) => clean(&format!("{parent}/{path}")),
    }
}

/// Returns the last element, as Go's `path.Base`.
pub(crate) fn base_name(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// Replaces back-slashes in a Windows path.
pub(crate) fn to_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('\\', "/") } else { path.to_owned() }
}

/// Replaces slashes in a Windows path.
pub(crate) fn from_slash(path: &str, os: &str) -> String {
    if os == "windows" { path.replace('/', "\\") } else { path.to_owned() }
}

/// Removes the drive letter of a Windows path; other paths are returned as they are.
pub(crate) fn strip_drive(path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    if os != "windows" {
        return Ok(path.to_owned());
    }
    let slashed = path.replace('\\', "/");
    if slashed.len() == 2 && slashed.ends_with(':') {
        return Err(format!("No relative path specified in {}", super::quote(path)));
    }
    if slashed.starts_with("//") {
        return Err("UNC paths are not supported".to_owned());
    }
    let without = match slashed.split_once(':') {
        None => slashed.as_str(),
        Some((drive, rest)) if drive.eq_ignore_ascii_case("c") => rest,
        Some(_) => return Err("The specified path is not on the system drive (C:)".to_owned()),
    };
    let cleaned = clean(without);
    let keep = keep_slash && without.ends_with('/') && cleaned.len() > 1;
    Ok(if keep { cleaned + "/" } else { cleaned })
}

/// Tells whether a path is absolute on `os`.
pub(crate) fn is_absolute(path: &str, os: &str) -> bool {
    strip_drive(path, os, false).is_ok_and(|path| path.starts_with('/'))
}

/// Makes `path` absolute below `parent`, with slashes; on request a final `/` or `/.` is kept.
pub(crate) fn normalize_path(parent: &str, path: &str, os: &str, keep_slash: bool) -> Result<String, String> {
    let written = to_slash(path, os);
    let parent = to_slash(if parent.is_empty() { "/" } else { parent }, os);
    let mut parent = strip_drive(&parent, os, keep_slash)?;
    if !parent.starts_with('/') {
        parent = join("/", &parent);
    }
    let chosen = if written.is_empty() { parent.clone() } else { written.clone() };
    let mut result = strip_drive(&chosen, os, keep_slash)?;
    if !result.starts_with('/') {
        result = join(&parent, &result);
    }
    if keep_slash {
        if written.ends_with('/') && !result.ends_with('/') {
            result.push('/');
        } else if written.ends_with("/.") && !result.ends_with("/.") {
            if result != "/" {
                result.push('/');
            }
            result.push('.');
        }
    }
    Ok(to_slash(&result, os))
}

/// Returns the working directory that `WORKDIR path` sets, with the separators of `os`.
pub(crate) fn normalize_workdir(current: &str, path: &str, os: &str) -> Result<String, String> {
    normalize_path(current, path, os, false).map(|path| from_slash(&path, os))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_and_joining() {
        for (path, cleaned) in
            [("", "."), ("/", "/"), ("a//b/./c/..", "a/b"), ("/../a", "/a"), ("../a", "../a"), ("a/..", ".")]
        {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        assert_eq!(join("/", "a/../b"), "/b");
        assert_eq!(join("/", ""), "/");
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/"), "/");
    }

    #[test]
    fn absolute_paths() {
        let linux = |parent: &str, path: &str| normalize_path(parent, path, "linux", true).unwrap();
        assert_eq!(linux("/w", "d/"), "/w/d/");
        assert_eq!(linux("/w", "./"), "/w/");
        assert_eq!(linux("/w", "/x/../y/"), "/x/../y/");
        assert_eq!(linux("/", "."), "/");
        assert_eq!(normalize_workdir("/a", "b", "linux").unwrap(), "/a/b");
        assert_eq!(normalize_workdir("/a", "", "linux").unwrap(), "/a");
    }

    #[test]
    fn windows_paths() {
        assert_eq!(normalize_workdir("", r"C:\app\x", "windows").unwrap(), r"\app\x");
        assert_eq!(normalize_workdir(r"\app", "y", "windows").unwrap(), r"\app\y");
        assert!(normalize_workdir("", r"D:\app", "windows").is_err());
        assert!(is_absolute(r"c:\x", "windows") && !is_absolute("c:x", "windows"));
        assert_eq!(normalize_path("/", r"C:\d\", "windows", true).unwrap(), "/d/");
    }
}
