//! The sender on tokio, which waits with epoll.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{Answer, Content, REQUEST_BYTES};

/// Serves for ever.
pub fn serve(listener: std::net::TcpListener, content: Content) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        let content = Arc::new(content);
        loop {
            let (stream, _) = listener.accept().await?;
            let content = Arc::clone(&content);
            tokio::spawn(async move { drop(converse(stream, &content).await) });
        }
    })
}

async fn converse(mut stream: TcpStream, content: &Content) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let Some(Answer { head, quanta }) = content.answer(&buffer) else { continue };
        buffer.clear();
        stream.write_all(&head).await?;
        for _ in 0..quanta {
            stream.write_all(&content.quantum()).await?;
        }
    }
}
