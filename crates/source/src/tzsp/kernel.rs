//! What the kernel could not put together: a socket only gets whole datagrams.

use std::fs;

/// Fragmented IP datagrams, of any protocol, that this network namespace gave up since it began: `ReasmFails` of IPv4 and
/// IPv6 (RFC 4293, `ipSystemStatsReasmFails`). Linux gives one up 30 s after its first fragment (`net.ipv4.ipfrag_time`).
pub(super) fn reassembly_failures() -> u64 {
    let snmp = fs::read_to_string("/proc/self/net/snmp").unwrap_or_default();
    let snmp6 = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
    ipv4(&snmp).unwrap_or(0) + ipv6(&snmp6).unwrap_or(0)
}

/// Two lines that begin with `Ip:`, one of names, one of numbers.
fn ipv4(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
    pairs.find(|(name, _)| *name == "ReasmFails")?.1.parse().ok()
}

/// A name and a number on each line.
fn ipv6(snmp6: &str) -> Option<u64> {
    let line = snmp6.lines().find(|line| line.starts_with("Ip6ReasmFails"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let snmp = "Ip: Forwarding DefaultTTL ReasmOKs ReasmFails\nIp: 1 64 5 17\nIcmp: InMsgs\nIcmp: 3\n";
        assert_eq!((ipv4(snmp), ipv4("Ip: ReasmFails\n"), ipv4("")), (Some(17), None, None));
        assert_eq!(ipv6("Ip6ReasmOKs   \t1\nIp6ReasmFails                   \t9\n"), Some(9));
    }
}
