//! The sender on tokio-uring.

use std::io;
use std::rc::Rc;

use tokio_uring::net::{TcpListener, TcpStream};

use crate::{Answer, Content, REQUEST_BYTES};

/// Serves for ever.
pub fn serve(listener: std::net::TcpListener, content: Content) -> io::Result<()> {
    // As many entries as our driver's ring has.
    let mut ring = tokio_uring::builder();
    ring.entries(4_096);
    ring.start(async move {
        let listener = TcpListener::from_std(listener);
        let content = Rc::new(content);
        loop {
            let (stream, _) = listener.accept().await?;
            let content = Rc::clone(&content);
            tokio_uring::spawn(async move { drop(converse(stream, &content).await) });
        }
    })
}

async fn converse(stream: TcpStream, content: &Content) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES);
    let mut request = Vec::new();
    loop {
        let (result, filled) = stream.read(buffer).await;
        buffer = filled;
        if result? == 0 {
            return Ok(());
        }
        let answer = if request.is_empty() { content.answer(&buffer) } else { None };
        let answer = answer.or_else(|| {
            request.extend_from_slice(&buffer);
            content.answer(&request)
        });
        buffer.clear();
        let Some(Answer { head, quanta }) = answer else { continue };
        request.clear();
        stream.write_all(head).await.0?;
        for _ in 0..quanta {
            stream.write_all(content.quantum()).await.0?;
        }
    }
}
