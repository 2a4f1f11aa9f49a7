//! Lines of snapshots, and frames between the roles of one host.

use bootstorm_api::frame::{self, Decoder};
use bootstorm_api::local::{ToGateway, ToRack};
use bootstorm_snapshot::{View, codec};

/// Lines of a snapshot: what was read is applied, and the view that results is written and read again.
pub fn snapshot_parse(data: &[u8]) {
    let Ok(lines) = codec::decode_lines(data) else { return };
    let mut view = View::default();
    for line in lines {
        view.apply(line);
    }
    let mut text = Vec::new();
    view.base().iter().for_each(|line| codec::encode_line(line, &mut text));
    let mut again = View { generation: view.generation, ..View::default() };
    for line in codec::decode_lines(&text).expect("our own lines can be read") {
        again.apply(line);
    }
    assert_eq!(again, view);
    assert!(view.delta(&again).is_empty());
}

/// Frames of the stream between rack and gateway, in both directions. A message that was read can be written.
pub fn local_frame_parse(data: &[u8]) {
    let mut decoder = Decoder::default();
    decoder.feed(data);
    while let Ok(Some((message, attachment))) = decoder.poll_frame::<ToRack>() {
        let bytes = frame::encode(&message, &attachment).expect("what was read can be written");
        let mut again = Decoder::default();
        again.feed(&bytes);
        let (read, left) = again.poll_frame::<ToRack>().expect("our own frame").expect("whole");
        assert_eq!((read, left), (message, attachment));
    }
    let mut decoder = Decoder::default();
    for piece in data.chunks(7) {
        decoder.feed(piece);
        loop {
            match decoder.poll_frame::<ToGateway>() {
                Ok(Some((message, attachment))) => {
                    frame::encode(&message, &attachment).expect("what was read can be written");
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
