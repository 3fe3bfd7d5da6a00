//! What a joined carrier costs the relay: CPU seconds of the splicing thread per GB, for bulk and for small messages.
//!
//! `cargo run --release -p cloister-core --example splice_cost [GB] [write size]`: one source, one sink, the relay's pair between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use cloister_core::relay::splice::{PIPE_BYTES, PIPES_KEPT, Pair};
use cloister_core::sys::PipePool;

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    for side in [&near, &far] {
        side.set_nodelay(true).unwrap();
        socket2::SockRef::from(side).set_tcp_congestion(b"cubic").unwrap();
    }
    (near, far)
}

/// Runs `ends` at the two outer ends while the relay's pair runs on a thread of its own; the relay's CPU time.
fn relayed(ends: impl FnOnce(TcpStream, TcpStream) + Send) -> Duration {
    let ((source, client), (connector, sink)) = (pair(), pair());
    std::thread::scope(|scope| {
        scope.spawn(|| ends(source, sink));
        std::thread::Builder::new()
            .name("relay".into())
            .spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let convert = |side: TcpStream| {
                        side.set_nonblocking(true).unwrap();
                        tokio::net::TcpStream::from_std(side).unwrap()
                    };
                    let pair = Pair { client: convert(client), connector: convert(connector) };
                    let begun = cpu();
                    pair.run(&PipePool::new(PIPES_KEPT, PIPE_BYTES), &AtomicU64::new(0)).await.unwrap();
                    cpu() - begun
                })
            })
            .unwrap()
            .join()
            .unwrap()
    })
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let gigabytes: f64 = arguments.next().map_or(4.0, |text| text.parse().unwrap());
    let size: usize = arguments.next().map_or(65_536, |text| text.parse().unwrap());
    let total = (gigabytes * 1e9) as usize;

    let begun = Instant::now();
    let bulk = relayed(|mut source, mut sink| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let data = vec![7u8; size];
                let mut left = total;
                while left > 0 {
                    source.write_all(&data[..size.min(left)]).unwrap();
                    left -= size.min(left);
                }
            });
            let mut buffer = vec![0; 1 << 18];
            let mut got = 0;
            while got < total {
                got += sink.read(&mut buffer).unwrap();
            }
        });
    });
    let wall = begun.elapsed().as_secs_f64();
    println!("bulk: {:.4} CPU-s/GB, {:.2} GB/s", bulk.as_secs_f64() / gigabytes, gigabytes / wall);

    if std::env::args().count() > 3 {
        return;
    }
    // 64 bytes and back: latency must not pay for the bulk.
    let rounds = 20_000u32;
    let mut times = Vec::new();
    let ping = relayed(|mut source, mut sink| {
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut buffer = [0; 64];
                for _ in 0..rounds {
                    sink.read_exact(&mut buffer).unwrap();
                    sink.write_all(&buffer).unwrap();
                }
            });
            let mut buffer = [0; 64];
            for _ in 0..rounds {
                let begun = Instant::now();
                source.write_all(&buffer).unwrap();
                source.read_exact(&mut buffer).unwrap();
                times.push(begun.elapsed());
            }
        });
    });
    times.sort();
    println!(
        "64 bytes and back: {:.2} us CPU, p50 {:?}, p99 {:?}",
        ping.as_secs_f64() / f64::from(rounds) * 1e6,
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );

    // A burst and its tail: bulk, then nothing; the last byte must not wait.
    let mut tails = Vec::new();
    relayed(|mut source, mut sink| {
        let data = vec![7u8; 700_001];
        let mut buffer = vec![0; 700_001];
        for _ in 0..300 {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(|| source.write_all(&data).unwrap());
                sink.read_exact(&mut buffer).unwrap();
            });
            tails.push(begun.elapsed());
        }
    });
    tails.sort();
    println!("700 kB bursts: p50 {:?}, p99 {:?}", tails[tails.len() / 2], tails[tails.len() * 99 / 100]);
}
