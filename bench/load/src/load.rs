//! The loads. Every function returns what it measured; times are taken on the monotonic clock.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Failure;
use crate::wire::{CHUNK, DOWNLOAD, ECHO, MAX_ECHO, TOUCH, UPLOAD, request};

/// Flows are opened by this many workers at once, so that no backlog overflows on the way.
const OPENERS: usize = 64;
/// How long one step of a held or stalled flow may take before the set-up counts as broken.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Serialize)]
pub struct Measured {
    /// Bytes, requests or connections.
    count: u64,
    seconds: f64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
}

impl Measured {
    fn of(count: u64, took: Duration, mut samples: Vec<u32>) -> Self {
        samples.sort_unstable();
        let at = |share: f64| {
            let index = ((samples.len() as f64 * share) as usize).min(samples.len().saturating_sub(1));
            samples.get(index).map(|nanos| f64::from(*nanos) / 1000.0)
        };
        let seconds = took.as_secs_f64();
        Self { count, seconds, per_second: count as f64 / seconds, p50_us: at(0.50), p99_us: at(0.99) }
    }
}

async fn open(address: SocketAddr) -> Result<TcpStream, std::io::Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub async fn bulk(address: SocketAddr, up: bool, streams: u64, bytes: u64) -> Result<Measured, Failure> {
    if streams == 0 {
        return Err("no stream to measure with".into());
    }
    let each = bytes / streams;
    let started = Instant::now();
    let mut flows = JoinSet::new();
    for _ in 0..streams {
        flows.spawn(async move { if up { upload(address, each).await } else { download(address, each).await } });
    }
    while let Some(done) = flows.join_next().await {
        let count = done??;
        if count != each {
            return Err(format!("`{count}` bytes arrived of {each}").into());
        }
    }
    Ok(Measured::of(each * streams, started.elapsed(), Vec::new()))
}

/// Ends its half first and is told what arrived: a path that loses half-close fails here.
async fn upload(address: SocketAddr, bytes: u64) -> Result<u64, std::io::Error> {
    let mut stream = open(address).await?;
    stream.write_all(&request(UPLOAD, bytes)).await?;
    let chunk = vec![0x5A; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(chunk.get(..n).unwrap_or(&chunk)).await?;
        left -= n as u64;
    }
    stream.shutdown().await?;
    stream.read_u64().await
}

async fn download(address: SocketAddr, bytes: u64) -> Result<u64, std::io::Error> {
    let mut stream = open(address).await?;
    stream.write_all(&request(DOWNLOAD, bytes)).await?;
    let mut chunk = vec![0; CHUNK];
    let mut count = 0;
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(count),
            n => count += n as u64,
        }
    }
}

pub async fn pingpong(address: SocketAddr, flows: usize, time: Duration, size: usize) -> Result<Measured, Failure> {
    if size == 0 || size > MAX_ECHO {
        return Err(format!("`{size}` bytes are no message; at most {MAX_ECHO}").into());
    }
    let mut ready = Vec::with_capacity(flows);
    for _ in 0..flows {
        let mut stream = open(address).await?;
        stream.write_all(&request(ECHO, size as u64)).await?;
        exchange(&mut stream, &vec![1; size], &mut vec![0; size * 2]).await?;
        ready.push(stream);
    }
    let started = Instant::now();
    let until = started + time;
    let mut running = JoinSet::new();
    for mut stream in ready {
        running.spawn(async move {
            let message = vec![1; size];
            let mut answer = vec![0; size * 2];
            let mut samples = Vec::new();
            let mut before = Instant::now();
            while before < until {
                exchange(&mut stream, &message, &mut answer).await?;
                let now = Instant::now();
                samples.push(u32::try_from((now - before).as_nanos()).unwrap_or(u32::MAX));
                before = now;
            }
            Ok::<_, std::io::Error>(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = running.join_next().await {
        samples.append(&mut done??);
    }
    Ok(Measured::of(samples.len() as u64, started.elapsed(), samples))
}

/// One flow that downloads and one that asks, beside each other for the same time.
pub async fn mixed(address: SocketAddr, time: Duration) -> Result<[Measured; 2], Failure> {
    let mut stream = open(address).await?;
    stream.write_all(&request(DOWNLOAD, u64::MAX)).await?;
    let bulk = tokio::spawn(async move {
        let started = Instant::now();
        let mut chunk = vec![0; CHUNK];
        let mut count = 0;
        while started.elapsed() < time {
            match stream.read(&mut chunk).await? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => count += n as u64,
            }
        }
        Ok::<_, std::io::Error>(Measured::of(count, started.elapsed(), Vec::new()))
    });
    let interactive = pingpong(address, 1, time, 64).await?;
    Ok([bulk.await??, interactive])
}

async fn exchange(stream: &mut TcpStream, message: &[u8], answer: &mut [u8]) -> Result<(), std::io::Error> {
    stream.write_all(message).await?;
    let mut have = 0;
    while have < message.len() {
        match stream.read(answer.get_mut(have..).unwrap_or_default()).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    Ok(())
}

pub async fn connect(address: SocketAddr, workers: usize, time: Duration) -> Result<Measured, Failure> {
    let started = Instant::now();
    let until = started + time;
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(async move {
            let mut samples = Vec::new();
            let mut before = Instant::now();
            while before < until {
                touch(address).await?;
                let now = Instant::now();
                samples.push(u32::try_from((now - before).as_nanos()).unwrap_or(u32::MAX));
                before = now;
            }
            Ok::<_, std::io::Error>(samples)
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = running.join_next().await {
        samples.append(&mut done??);
    }
    Ok(Measured::of(samples.len() as u64, started.elapsed(), samples))
}

async fn touch(address: SocketAddr) -> Result<TcpStream, std::io::Error> {
    let mut stream = open(address).await?;
    stream.write_all(&[TOUCH]).await?;
    let mut answer = [0; 2];
    match stream.read(&mut answer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(stream),
    }
}

pub async fn hold(address: SocketAddr, flows: usize) -> Result<(), Failure> {
    let held = stand(flows, move || touch(address)).await?;
    until_input_ends(held).await
}

/// Asks for more data than any buffer on the way holds, and never reads it.
pub async fn stall(address: SocketAddr, flows: usize) -> Result<(), Failure> {
    let held = stand(flows, move || async move {
        let mut stream = open(address).await?;
        stream.write_all(&request(DOWNLOAD, 1 << 30)).await?;
        stream.readable().await?;
        Ok(stream)
    })
    .await?;
    until_input_ends(held).await
}

async fn stand<F, T>(flows: usize, start: F) -> Result<Vec<TcpStream>, Failure>
where
    F: Fn() -> T + Clone + Send + 'static,
    T: Future<Output = Result<TcpStream, std::io::Error>> + Send,
{
    let started = Instant::now();
    let mut openers = JoinSet::new();
    for opener in 0..OPENERS {
        let start = start.clone();
        let share = flows / OPENERS + usize::from(opener < flows % OPENERS);
        openers.spawn(async move {
            let mut held = Vec::with_capacity(share);
            for _ in 0..share {
                held.push(tokio::time::timeout(PATIENCE, start()).await??);
            }
            Ok::<_, std::io::Error>(held)
        });
    }
    let mut held = Vec::with_capacity(flows);
    while let Some(done) = openers.join_next().await {
        held.append(&mut done??);
    }
    println!("{}", serde_json::to_string(&Measured::of(held.len() as u64, started.elapsed(), Vec::new()))?);
    Ok(held)
}

async fn until_input_ends(held: Vec<TcpStream>) -> Result<(), Failure> {
    let mut input = tokio::io::stdin();
    while input.read(&mut [0; 64]).await? > 0 {}
    drop(held);
    Ok(())
}
