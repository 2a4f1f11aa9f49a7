//! `bootstorm apply -f FILE`: YAML documents, declarative and idempotent.

use std::path::PathBuf;

use bootstorm_api::native::{ApplyAnswer, ApplyRequest, Change, Document};
use clap::Args;

use super::client::{Client, ClientError};
use super::output::{self, Format, Rows};

/// Makes fabrics, VLANs, subnets, ranges and machines as a file says.
#[derive(Debug, Args)]
#[command(
    after_help = "Example of a file:\n  kind: fabric\n  name: rack-1\n  ---\n  kind: vlan\n  fabric: rack-1\n  vid: 0\n  \
---\n  kind: subnet\n  fabric: rack-1\n  cidr: 10.0.0.0/24\n  ---\n  kind: range\n  subnet: 10.0.0.0/24\n  type: dynamic\n  \
first: 10.0.0.200\n  last: 10.0.0.250\n\nAll documents take effect, or none.\n\nExample:\n  bootstorm apply -f site.yaml --dry-run"
)]
pub struct Apply {
    /// The file; `-` reads standard input
    #[arg(short, long)]
    file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
}

impl Rows for Change {
    const COLUMNS: &'static [&'static str] = &["outcome", "what", "fields"];
    fn cells(&self) -> Vec<String> {
        vec![self.outcome.clone(), self.what.clone(), self.fields.join(", ")]
    }
    fn name(&self) -> String {
        self.what.clone()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Apply) -> Result<(), ClientError> {
    let failed = |why: String| ClientError::File { path: command.file.clone(), why };
    let text = if command.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(&command.file)
    };
    let documents = parse(&text.map_err(|e| failed(e.to_string()))?).map_err(failed)?;
    let request = ApplyRequest { documents, dry_run: command.dry_run };
    let answer: ApplyAnswer = client.post("/apply", &request).await?;
    output::list(format, &answer.changes);
    Ok(())
}

/// Reads the documents of a YAML stream. Duplicate keys and anchors are refused.
fn parse(text: &str) -> Result<Vec<Document>, String> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        budget: serde_saphyr::budget! { max_anchors: 0, max_aliases: 0, max_depth: 64 },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "kind: fabric\nname: f\n---\nkind: range\nsubnet: 10.0.0.0/24\ntype: dynamic\nfirst: 10.0.0.9\nlast: 10.0.0.10\n";

    #[test]
    fn documents_are_read_in_order() {
        let documents = parse(SITE).expect("valid");
        assert!(matches!(documents.as_slice(), [Document::Fabric { .. }, Document::Range { .. }]), "{documents:?}");
    }

    #[test]
    fn unknown_fields_duplicates_and_anchors_are_refused() {
        for bad in [
            "kind: fabric\nname: f\nmore: 1\n",
            "kind: fabric\nname: f\nname: g\n",
            "kind: fabric\nname: &a f\n",
            "kind: fabrick\nname: f\n",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
