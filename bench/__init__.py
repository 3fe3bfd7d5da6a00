"""The benchmark: ratios of Cloister against plain loopback and a fixed baseline of two TLS hops, taken in one interleaved run."""
