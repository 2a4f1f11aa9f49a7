//! Parts of a boot that are timed.

/// A part of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Both rounds of DHCP, and taking the address.
    Dhcp,
    /// The loader, by TFTP or HTTP.
    Loader,
    /// The scripts, and what else a loader asks for.
    Script,
    /// Kernel and initial RAM disks.
    Kernel,
    /// The claim.
    Redeem,
    /// The image, with its manifest where it has one.
    Image,
    /// What the agent reports.
    Report,
    /// The metadata.
    Metadata,
    /// The installed system's signal.
    PhoneHome,
}

impl Stage {
    /// All names, in the order of a boot; a stage's index here is its number in reports.
    pub const NAMES: &'static [&'static str] =
        &["dhcp", "loader", "script", "kernel+initrd", "redeem", "image", "report", "metadata", "phone-home"];

    /// Its place in [`NAMES`](Stage::NAMES).
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_name() {
        let name = |stage: Stage| Stage::NAMES[stage.index()];
        assert_eq!((name(Stage::Dhcp), name(Stage::Kernel)), ("dhcp", "kernel+initrd"));
        assert_eq!(Stage::PhoneHome.index() + 1, Stage::NAMES.len());
    }
}
