//! `docs/LIFECYCLE.md` is printed from the table of legal moves; this test holds them together.
//! After a change of the table: `BLESS=1 cargo test -p bootstorm-model --test lifecycle_document`.

#![allow(clippy::disallowed_methods, reason = "the test reads a document; the model itself does not")]

use std::path::Path;

#[test]
fn the_document_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/LIFECYCLE.md");
    let text = format!(
        "# Lifecycle of a machine\n\nPrinted from the table in `control/model/src/lifecycle` by its test; every pair of state and event \
that is not drawn is refused with a reason. *Locked* and *held* are flags beside the state.\n\n```mermaid\n{}\n```\n",
        bootstorm_model::lifecycle::diagram().trim_end()
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).expect("the document can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/LIFECYCLE.md is not what the table says; bless it as this file's head tells");
}
