//! Load generator and sink of the benchmark: plain TCP on both ends, so that whatever stands between is what is measured.
//!
//! One request per connection, told by its first byte (`wire.rs`). Every load prints one JSON line on standard output; `hold` and
//! `stall` print theirs when all flows stand and end when standard input does.

mod load;
mod sink;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: cloister-load
  sink ADDRESS                            serve; prints the bound address
  bulk ADDRESS up|down STREAMS BYTES      BYTES in all, split over STREAMS flows at once
  pingpong ADDRESS FLOWS SECONDS [SIZE]   one request in flight per flow, SIZE (64) bytes each way
  mixed ADDRESS SECONDS                   a download and 64 bytes each way beside each other; prints two lines
  connect ADDRESS WORKERS SECONDS         connect, exchange one byte, close, again
  hold ADDRESS FLOWS                      idle flows until standard input ends
  stall ADDRESS FLOWS                     flows with data under way that nobody reads, until standard input ends";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match runtime.block_on(run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("cloister-load: {message}");
    ExitCode::FAILURE
}

async fn run(arguments: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["sink", address] => return sink::serve(address.parse()?).await,
        ["bulk", address, direction @ ("up" | "down"), streams, bytes] => {
            load::bulk(address.parse()?, *direction == "up", streams.parse()?, bytes.parse()?).await?
        }
        ["pingpong", address, flows, seconds] => load::pingpong(address.parse()?, flows.parse()?, duration(seconds)?, 64).await?,
        ["pingpong", address, flows, seconds, size] => {
            load::pingpong(address.parse()?, flows.parse()?, duration(seconds)?, size.parse()?).await?
        }
        ["connect", address, workers, seconds] => load::connect(address.parse()?, workers.parse()?, duration(seconds)?).await?,
        ["mixed", address, seconds] => {
            for result in load::mixed(address.parse()?, duration(seconds)?).await? {
                println!("{}", serde_json::to_string(&result)?);
            }
            return Ok(());
        }
        ["hold", address, flows] => return load::hold(address.parse::<SocketAddr>()?, flows.parse()?).await,
        ["stall", address, flows] => return load::stall(address.parse::<SocketAddr>()?, flows.parse()?).await,
        _ => return Err(USAGE.into()),
    };
    println!("{}", serde_json::to_string(&result)?);
    Ok(())
}

fn duration(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::try_from_secs_f64(text.parse()?)?)
}
