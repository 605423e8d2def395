//! The daemon's socket: a versioned, bounded protocol; its server, its client, and the trait that both sides meet in.
