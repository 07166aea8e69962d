//! What a server's log says.

/// How far the port of a cluster's bus is from the node's.
const BUS: u16 = 10_000;
/// A server's, and a sentinel's, own words when it has its port.
const LISTENS: [&str; 2] = ["Ready to accept connections", "Sentinel ID is"];

/// Whether the server has its port.
pub(super) fn listens(log: &str) -> bool {
    LISTENS.iter().any(|words| log.contains(words))
}

/// Whether another program had the port. A node of a cluster has two.
pub(super) fn is_port_taken(log: &str, port: u16) -> bool {
    let ports = [port, port.saturating_add(BUS)].map(|port| format!(":{port}: "));
    log.lines().any(|line| line.contains("in use") && ports.iter().any(|port| line.contains(port)))
}
