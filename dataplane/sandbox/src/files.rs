//! Landlock: which files are left, and whether TCP is.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::{Enforced, Error, Sandbox, Tcp};

/// Linux 6.12: the first that also confines signals and abstract unix sockets. Older kernels do what they know of it.
const VERSION: ABI = ABI::V6;

pub(crate) fn enter(sandbox: &Sandbox<'_>) -> Result<Enforced, Error> {
    let failed = Error::system::<RulesetError>("confining files by Landlock");
    let mut ruleset = Ruleset::default().handle_access(AccessFs::from_all(VERSION)).map_err(&failed)?;
    if sandbox.tcp == Tcp::Refused {
        ruleset = ruleset.handle_access(AccessNet::from_all(VERSION)).map_err(&failed)?;
    }
    let mut ruleset = ruleset.scope(Scope::from_all(VERSION)).and_then(Ruleset::create).map_err(&failed)?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in sandbox.read {
        ruleset = allow(ruleset, path, read).map_err(&failed)?;
    }
    for path in sandbox.execute {
        ruleset = allow(ruleset, path, read | AccessFs::Execute).map_err(&failed)?;
    }
    for path in sandbox.write {
        // Fails here rather than at the role's first write.
        std::fs::metadata(path).map_err(|source| Error::Path { path: path.to_path_buf(), source })?;
        ruleset = allow(ruleset, path, AccessFs::from_all(VERSION) & !AccessFs::Execute).map_err(&failed)?;
    }
    let RestrictionStatus { ruleset, .. } = ruleset.restrict_self().map_err(&failed)?;
    Ok(match ruleset {
        RulesetStatus::FullyEnforced => Enforced::Fully,
        RulesetStatus::PartiallyEnforced => Enforced::Partly,
        RulesetStatus::NotEnforced => Enforced::Missing,
    })
}

fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    // What is not there cannot be read.
    let Ok(opened) = PathFd::new(path) else { return Ok(ruleset) };
    // Rights to directories make no sense for a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(VERSION) };
    ruleset.add_rule(PathBeneath::new(opened, access))
}
