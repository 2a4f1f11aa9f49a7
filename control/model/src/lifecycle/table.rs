//! The legal moves as data, and the diagram made from them.

use super::Status;
use super::Status::{
    Allocated, Broken, Commissioning, Deployed, Deploying, DiskErasing, EnteringRescueMode, ExitingRescueMode,
    FailedCommissioning, FailedDeployment, FailedDiskErasing, FailedEnteringRescueMode, FailedExitingRescueMode,
    FailedReleasing, FailedTesting, Missing, New, Ready, Releasing, RescueMode, Reserved, Retired, Testing,
};
use std::fmt::Write;

/// The statuses a machine may be created in.
pub const CREATED: &[Status] = &[New, Missing, Retired];

/// From each status, the ones it may move to next; MAAS's table. A move from a status to itself is legal only where it is listed.
pub const LEGAL: &[(Status, &[Status])] = &[
    (New, &[Commissioning, Testing, Missing, Ready, Retired, Broken, EnteringRescueMode]),
    (Commissioning, &[FailedCommissioning, Ready, Retired, Missing, New, Broken, Testing]),
    (FailedCommissioning, &[Commissioning, Missing, Retired, Broken, EnteringRescueMode, Testing]),
    (Missing, &[New, Ready, Allocated, Commissioning, Broken, EnteringRescueMode, Testing]),
    (Ready, &[EnteringRescueMode, Commissioning, Allocated, Reserved, Retired, Missing, Broken, Testing]),
    (Reserved, &[Ready, Allocated, Retired, Missing, Broken, DiskErasing, Releasing, EnteringRescueMode, Testing]),
    (Deployed, &[Allocated, Missing, Broken, Ready, DiskErasing, Releasing, EnteringRescueMode, Testing]),
    (Retired, &[New, Ready, Missing, Broken, EnteringRescueMode, Testing]),
    (Broken, &[Commissioning, Ready, DiskErasing, Releasing, EnteringRescueMode, Testing, Deployed]),
    (Deploying, &[Allocated, Missing, Broken, FailedDeployment, Deployed, Ready, DiskErasing, Releasing]),
    (Allocated, &[Ready, Retired, Missing, Broken, Deploying, DiskErasing, Releasing, EnteringRescueMode, Testing]),
    (FailedDeployment, &[Allocated, Missing, Broken, Ready, DiskErasing, Releasing, EnteringRescueMode, Testing]),
    (
        Releasing,
        &[
            New,
            Allocated,
            Reserved,
            Deployed,
            Ready,
            Broken,
            Missing,
            FailedDeployment,
            FailedDiskErasing,
            FailedReleasing,
        ],
    ),
    (FailedReleasing, &[Releasing, DiskErasing, Ready, Broken, Testing]),
    (DiskErasing, &[Broken, DiskErasing, FailedDiskErasing, Ready, Releasing]),
    (FailedDiskErasing, &[DiskErasing, Releasing, Broken, Allocated, Ready, EnteringRescueMode, Testing]),
    (RescueMode, &[Broken, ExitingRescueMode, Testing]),
    (EnteringRescueMode, &[Ready, Broken, Deployed, RescueMode, FailedEnteringRescueMode, ExitingRescueMode]),
    (FailedEnteringRescueMode, &[Broken, EnteringRescueMode, ExitingRescueMode, Testing]),
    (
        ExitingRescueMode,
        &[
            New,
            FailedCommissioning,
            Missing,
            Ready,
            Reserved,
            Deployed,
            Retired,
            Broken,
            Allocated,
            FailedDeployment,
            FailedReleasing,
            FailedDiskErasing,
            RescueMode,
            FailedEnteringRescueMode,
            FailedExitingRescueMode,
            FailedTesting,
        ],
    ),
    (FailedExitingRescueMode, &[Broken, ExitingRescueMode, Testing]),
    (
        Testing,
        &[
            New,
            FailedCommissioning,
            Missing,
            Ready,
            Reserved,
            Deployed,
            Retired,
            Broken,
            Allocated,
            FailedDeployment,
            FailedReleasing,
            FailedDiskErasing,
            FailedTesting,
        ],
    ),
    (FailedTesting, &[Commissioning, Broken, Missing, EnteringRescueMode, Testing, Ready, Deployed]),
];

/// Whether a machine may move between two statuses.
pub fn is_legal(from: Status, to: Status) -> bool {
    LEGAL.iter().any(|(status, next)| *status == from && next.contains(&to))
}

/// The lifecycle as a Mermaid state diagram, ending in a newline: in-progress statuses are marked, with their deadlines.
///
/// Documents include its output; a test compares them.
pub fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n");
    let mut line = |args: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {args}");
    };
    for status in Status::ALL {
        match status.in_progress() {
            Some(progress) => line(format_args!(
                "{} : {} ({} min, else {})",
                status.word(),
                status.name(),
                progress.deadline_seconds / 60,
                progress.failure.name()
            )),
            None => line(format_args!("{} : {}", status.word(), status.name())),
        }
    }
    for status in CREATED {
        line(format_args!("[*] --> {status}"));
    }
    for (from, next) in LEGAL {
        for to in *next {
            line(format_args!("{from} --> {to}"));
        }
    }
    text
}
