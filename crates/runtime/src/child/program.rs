//! Finds the program of a step inside its root and executes it.

use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::error::{ExecFailure, ProcessError};
use crate::spec::ProcessSettings;
use crate::sys::exec;

/// Where programs are looked up if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Executes the program in its working directory; returns only if that failed.
pub(super) fn execute(settings: &ProcessSettings) -> ProcessError {
    if let Err(errno) = rustix::process::chdir(settings.cwd.as_str()) {
        return ProcessError::WorkingDirectory { path: settings.cwd.clone(), errno: errno.raw_os_error() };
    }
    let program = settings.args.first().map(String::as_str).unwrap_or_default();
    if program.len() > libc::PATH_MAX as usize {
        let program = program.chars().take(100).collect();
        let reason = ExecFailure::Other(Errno::NAMETOOLONG.raw_os_error());
        return ProcessError::CannotExecute { program, reason };
    }
    let path = match find(program, search_path(&settings.env)) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let fail = |reason| ProcessError::CannotExecute { program: program.to_owned(), reason };
    let strings =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let env = environment(settings);
    let (Ok(file), Ok(args), Ok(env)) = (CString::new(path.as_str()), strings(&settings.args), strings(&env))
    else {
        return fail(ExecFailure::Other(Errno::INVAL.raw_os_error()));
    };
    fail(match exec::execute(&file, &args, &env) {
        Errno::NOEXEC => ExecFailure::WrongFormat,
        Errno::ACCESS => ExecFailure::PermissionDenied,
        // The file was there a moment ago: what is missing is what it wants to be run by.
        Errno::NOENT if exists(&path) => ExecFailure::InterpreterNotFound,
        Errno::NOENT => ExecFailure::NotFound,
        errno => ExecFailure::Other(errno.raw_os_error()),
    })
}

/// Returns the environment, with `HOME` added and the last of several equal names kept.
fn environment(settings: &ProcessSettings) -> Vec<String> {
    let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
    let mut env: Vec<String> = Vec::with_capacity(settings.env.len() + 1);
    for pair in &settings.env {
        match env.iter().position(|other| name(other) == name(pair)) {
            Some(index) => env[index].clone_from(pair),
            None => env.push(pair.clone()),
        }
    }
    if !env.iter().any(|pair| name(pair) == "HOME") {
        env.push(format!("HOME={}", settings.user.home.as_deref().unwrap_or("/")));
    }
    env
}

/// Returns the last `PATH` of an environment.
fn search_path(env: &[String]) -> &str {
    env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

/// Finds a program as `execvp` does: by path if it has a `/`, else in the search path.
fn find(program: &str, search_path: &str) -> Result<String, ProcessError> {
    if program.contains('/') {
        return match check(program) {
            None => Ok(program.to_owned()),
            Some(reason) => Err(ProcessError::CannotExecute { program: program.to_owned(), reason }),
        };
    }
    let not_found = || ProcessError::NotInPath { program: program.to_owned() };
    if program.is_empty() {
        return Err(not_found());
    }
    let mut denied = None;
    for directory in search_path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let path = format!("{}/{program}", directory.trim_end_matches('/'));
        match check(&path) {
            None => return Ok(path),
            Some(reason @ ExecFailure::PermissionDenied) => denied = Some(reason),
            Some(_) => {}
        }
    }
    Err(denied
        .map_or_else(not_found, |reason| ProcessError::CannotExecute { program: program.to_owned(), reason }))
}

/// Says why a file cannot be executed, as far as that shows without trying.
fn check(path: &str) -> Option<ExecFailure> {
    match rustix::fs::stat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            return Some(ExecFailure::IsDirectory);
        }
        Ok(_) => {}
        Err(Errno::NOENT | Errno::NOTDIR) => return Some(ExecFailure::NotFound),
        Err(Errno::ACCESS) => return Some(ExecFailure::PermissionDenied),
        Err(errno) => return Some(ExecFailure::Other(errno.raw_os_error())),
    }
    match rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
        Ok(()) => None,
        Err(Errno::ACCESS) => Some(ExecFailure::PermissionDenied),
        Err(errno) => Some(ExecFailure::Other(errno.raw_os_error())),
    }
}

fn exists(path: &str) -> bool {
    rustix::fs::stat(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn settings(env: &[&str]) -> ProcessSettings {
        ProcessSettings { env: env.iter().map(|s| (*s).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn home_is_added_and_the_last_of_equal_names_wins() {
        assert_eq!(environment(&settings(&["A=1", "B=2", "A=3"])), ["A=3", "B=2", "HOME=/"]);
        assert_eq!(environment(&settings(&["HOME=/x"])), ["HOME=/x"]);
        let mut with_home = settings(&[]);
        with_home.user.home = Some("/root".into());
        assert_eq!(environment(&with_home), ["HOME=/root"]);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().to_str().unwrap().to_owned();
        for (name, mode) in [("good", 0o755), ("plain", 0o644)] {
            let path = dir.path().join(name);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let path = format!("/nonexistent:{base}");
        assert_eq!(find("good", &path).unwrap(), format!("{base}/good"));
        assert_eq!(find("missing", &path), Err(ProcessError::NotInPath { program: "missing".into() }));
        assert_eq!(find("folder", &path), Err(ProcessError::NotInPath { program: "folder".into() }));
        assert_eq!(find("", &path), Err(ProcessError::NotInPath { program: String::new() }));
        let denied = ExecFailure::PermissionDenied;
        assert_eq!(
            find("plain", &path),
            Err(ProcessError::CannotExecute { program: "plain".into(), reason: denied })
        );
        let error = find("/nonexistent/x", "").unwrap_err();
        assert_eq!(error.to_string(), "exec: \"/nonexistent/x\": no such file or directory");
        let error = find("missing", &path).unwrap_err();
        assert_eq!(error.to_string(), "exec: \"missing\": executable file not found in $PATH");
    }
}
