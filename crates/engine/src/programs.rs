//! Programs of the host that slipway calls, and how they are had.

/// Names the command that installs a package here; packages are named as Debian does.
pub(crate) fn install(package: &str) -> String {
    let managers = [
        ("apt-get", "apt-get install"),
        ("dnf", "dnf install"),
        ("apk", "apk add"),
        ("zypper", "zypper install"),
        ("pacman", "pacman -S"),
    ];
    let directories: Vec<_> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let is_here = |name: &str| directories.iter().any(|directory| directory.join(name).is_file());
    let (manager, command) = managers.into_iter().find(|(name, _)| is_here(name)).unwrap_or(managers[0]);
    let package = match (manager, package) {
        ("dnf" | "zypper", "openssh-client") => "openssh-clients",
        ("pacman", "openssh-client") => "openssh",
        (_, package) => package,
    };
    format!("install it: `{command} {package}`")
}
