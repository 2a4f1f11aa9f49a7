//! One file as a cpio archive of format `newc`, which the kernel takes as a further initrd
//! (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// The archive of `path` (relative, without `..`) with its directories, owned by root, mode 0644 and 0755.
pub(crate) fn archive(path: &str, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 1024);
    let mut inode = 1;
    for (end, _) in path.match_indices('/') {
        entry(&mut out, inode, 0o040_755, path.get(..end).unwrap_or_default(), &[]);
        inode += 1;
    }
    entry(&mut out, inode, 0o100_644, path, content);
    entry(&mut out, 0, 0, "TRAILER!!!", &[]);
    // iPXE and GRUB concatenate initrds; the kernel wants each archive to start on four octets.
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let links = if mode & 0o040_000 != 0 { 2 } else { 1 };
    out.extend_from_slice(b"070701");
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(0);
    let fields = [inode, mode, 0, 0, links, 0, length(content.len()), 0, 0, 0, 0, length(name.len() + 1), 0];
    for field in fields {
        out.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_names_and_padding_are_where_the_kernel_looks() {
        let archive = archive("etc/bootstorm/ca.pem", b"PEM");
        assert_eq!(archive.len() % 512, 0);
        assert!(archive.starts_with(b"070701"));
        let text = String::from_utf8_lossy(&archive);
        for name in ["etc\0", "etc/bootstorm\0", "etc/bootstorm/ca.pem\0", "TRAILER!!!\0"] {
            assert!(text.contains(name), "{name}");
        }
        let at = text.find("etc/bootstorm/ca.pem\0").expect("the file's name");
        let header = &text[at - 110..at];
        assert_eq!(&header[54..62], "00000003", "length of the content");
        assert_eq!(&text[(at + 21).next_multiple_of(4)..][..3], "PEM");
    }
}
