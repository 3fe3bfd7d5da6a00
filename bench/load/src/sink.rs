//! The service behind everything that is measured.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::wire::{CHUNK, DOWNLOAD, ECHO, MAX_ECHO, TOUCH, UPLOAD};

pub async fn serve(address: SocketAddr) -> std::result::Result<(), Failure> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(8192)?;
    let listener = TcpListener::from_std(socket.into())?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A load that breaks off is the load's error to report.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        TOUCH => touch(stream).await,
        UPLOAD => upload(stream).await,
        DOWNLOAD => download(stream).await,
        ECHO => echo(stream).await,
        other => Err(Error::new(ErrorKind::InvalidData, format!("unknown request `{other}`"))),
    }
}

async fn touch(mut stream: TcpStream) -> Result<()> {
    stream.write_all(&[TOUCH]).await?;
    let mut rest = [0; 16];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

async fn upload(mut stream: TcpStream) -> Result<()> {
    stream.read_u64().await?;
    let mut chunk = vec![0; CHUNK];
    let mut count = 0_u64;
    loop {
        match stream.read(&mut chunk).await? {
            0 => break,
            n => count += n as u64,
        }
    }
    stream.write_u64(count).await?;
    stream.shutdown().await
}

async fn download(mut stream: TcpStream) -> Result<()> {
    let mut left = stream.read_u64().await?;
    let chunk = vec![0xA5; CHUNK];
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(chunk.get(..n).unwrap_or(&chunk)).await?;
        left -= n as u64;
    }
    stream.shutdown().await
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    let size = usize::try_from(stream.read_u64().await?).unwrap_or(usize::MAX);
    if size == 0 || size > MAX_ECHO {
        return Err(Error::new(ErrorKind::InvalidData, format!("`{size}` bytes are no message; at most {MAX_ECHO}")));
    }
    // Larger than a message, so that a read which takes it whole is known to have emptied the socket.
    let mut buffer = vec![0; size * 2];
    let mut have = 0;
    loop {
        match stream.read(buffer.get_mut(have..).unwrap_or_default()).await? {
            0 => return Ok(()),
            n => have += n,
        }
        if have >= size {
            stream.write_all(buffer.get(..size).unwrap_or_default()).await?;
            buffer.copy_within(size..have, 0);
            have -= size;
        }
    }
}
