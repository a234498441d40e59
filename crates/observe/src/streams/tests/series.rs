//! The series of a scrape.

use std::collections::HashSet;

use metrics::Exposition;
use parking_lot::Mutex;
use prometheus::TextEncoder;

use super::super::collect;
use super::*;

/// A connection in which the client sends its request twice.
const CONNECTION: &str = "
    0 > S 1000 0 ws=7
    5 < SA 5000 1001 ws=7
    10 > A 1001 5001
    20 > A 1001 5001 len=100
    220 > A 1001 5001 len=100
    230 < A 5001 1101 len=300
    231 > A 1101 5301
    1500 < FA 5301 1101 len=50
    1501 > A 1101 5352
";

/// The totals, sorted by name as a registry does, and the table.
fn expose(streams: Streams, origins: &Origins) -> String {
    let (streams, mut out) = (Mutex::new(streams), Exposition::new());
    let mut families = collect::collect(&streams, origins);
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Streams::write_table(&streams, origins, &mut out);
    TextEncoder::new().encode_to_string(&families).unwrap() + out.as_str()
}

/// The samples whose names start with one of `prefixes`.
fn samples(text: &str, prefixes: &[&str]) -> String {
    let begins = |line: &&str| prefixes.iter().any(|prefix| line.starts_with(prefix));
    text.lines().filter(begins).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stream_has_one_series_of_each_metric() {
    let mut streams = streams();
    observe(&mut streams, HERE, CONNECTION);
    streams.advance(HERE, at(2_000.0));
    insta::assert_snapshot!(samples(&expose(streams, &origins()), &["tcp_"]), @r#"
    tcp_stream_count 1
    tcp_streams_not_exported 0
    tcp_stream_health_score{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 95
    tcp_stream_health_score{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 100
    tcp_stream_uptime_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 2
    tcp_stream_uptime_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 1.495
    tcp_avg_delay_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.1075
    tcp_avg_delay_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.0023333333333333335
    tcp_min_delay_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.005
    tcp_min_delay_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.001
    tcp_max_delay_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.21
    tcp_max_delay_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.005
    tcp_jitter_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.1025
    tcp_jitter_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.0018856180831641268
    tcp_initial_rtt_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.01
    tcp_initial_rtt_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.01
    tcp_bitrate_bps{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 1065.9560546875
    tcp_bitrate_bps{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 1605.3511962890625
    tcp_bitrate_variance{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_bitrate_variance{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_packet_rate_pps{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 3
    tcp_packet_rate_pps{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 2.0066889632107023
    tcp_packet_size_variance{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_packet_size_variance{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.7142857142857143
    tcp_interarrival_variance_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.4904326253421565
    tcp_interarrival_variance_seconds{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0.5225
    tcp_window_size_bytes{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 128000
    tcp_window_size_bytes{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 128000
    tcp_bytes_transferred_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 200
    tcp_bytes_transferred_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 350
    tcp_retransmits_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 1
    tcp_retransmits_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_fast_retransmits_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_fast_retransmits_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_spurious_retransmits_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_spurious_retransmits_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_out_of_order_packets_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_out_of_order_packets_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_duplicate_acks_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_duplicate_acks_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_sequence_gaps_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_sequence_gaps_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_zero_window_events_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_zero_window_events_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_window_full_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_window_full_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_keep_alives_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_keep_alives_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    tcp_resets_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_resets_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="finalized"} 0
    "#);
}

#[test]
fn each_origin_has_totals() {
    let mut streams = streams();
    observe(&mut streams, HERE, CONNECTION);
    let text = expose(streams, &origins());
    let nonzero: String = samples(&text, &["packeteur_tcp_"])
        .lines()
        .filter(|line| !line.contains("bucket") && !line.ends_with(" 0"))
        .map(|line| format!("{line}\n"))
        .collect();
    insta::assert_snapshot!(nonzero, @r#"
    packeteur_tcp_bytes_total 550
    packeteur_tcp_connections_opened_total 1
    packeteur_tcp_initial_rtt_seconds_sum 0.01
    packeteur_tcp_initial_rtt_seconds_count 1
    packeteur_tcp_retransmits_total 1
    packeteur_tcp_rtt_seconds_sum 0.222
    packeteur_tcp_rtt_seconds_count 5
    packeteur_tcp_segments_total 9
    packeteur_tcp_streams 2
    "#);
    insta::assert_snapshot!(samples(&text, &["packeteur_tcp_initial_rtt_seconds"]), @r#"
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.0001"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.00025"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.0005"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.001"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.0025"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.005"} 0
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.01"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.025"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.05"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.1"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.25"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="0.5"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="1"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="2.5"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="5"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="10"} 1
    packeteur_tcp_initial_rtt_seconds_bucket{le="+Inf"} 1
    packeteur_tcp_initial_rtt_seconds_sum 0.01
    packeteur_tcp_initial_rtt_seconds_count 1
    "#);
}

#[test]
fn series_have_the_labels_of_their_origin() {
    let mut origins = Origins::new(Scope::SourceAndDevice);
    for device in ["eth0", "eth1"] {
        origins.register(&Origin { source: "edge".into(), device: device.into(), listen_port: None });
    }
    let mut streams = streams();
    for origin in [OriginId(0), OriginId(1)] {
        observe(&mut streams, origin, "0 > A 1 1 len=7");
    }
    insta::assert_snapshot!(samples(&expose(streams, &origins), &["tcp_bytes", "tcp_stream_count"]), @r#"
    tcp_stream_count{source="edge",device="eth0"} 1
    tcp_stream_count{source="edge",device="eth1"} 1
    tcp_bytes_transferred_total{source="edge",device="eth0",src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 7
    tcp_bytes_transferred_total{source="edge",device="eth1",src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 7
    "#);
}

#[test]
fn the_state_is_that_of_the_sender() {
    let mut streams = streams();
    observe(&mut streams, HERE, "0 > FA 1 1\n 1 < RA 1 2\n 2 > A 1 1 a=2\n 3 > FA 1 1 a=3\n 4 > RA 2 1 a=3");
    insta::assert_snapshot!(samples(&expose(streams, &origins()), &["tcp_resets", "tcp_stream_count"]), @r#"
    tcp_stream_count 1
    tcp_resets_total{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="finalized"} 0
    tcp_resets_total{src_ip="10.0.0.2",src_port="80",dst_ip="10.0.0.1",dst_port="40000",state="reset"} 1
    tcp_resets_total{src_ip="10.0.0.1",src_port="2",dst_ip="10.0.0.2",dst_port="80",state="active"} 0
    tcp_resets_total{src_ip="10.0.0.1",src_port="3",dst_ip="10.0.0.2",dst_port="80",state="reset"} 1
    "#);
}

#[test]
fn a_scrape_exports_the_streams_with_most_bytes() {
    let mut streams = Streams::new(StreamsConfig { export: 2, max_streams: 100, ..StreamsConfig::default() });
    for (port, len) in [(1, 10), (2, 30), (3, 5), (4, 20)] {
        observe(&mut streams, HERE, &format!("0 > A 1 1 len={len} a={port}"));
    }
    insta::assert_snapshot!(samples(&expose(streams, &origins()), &["tcp_bytes", "tcp_streams_not"]), @r#"
    tcp_streams_not_exported 2
    tcp_bytes_transferred_total{src_ip="10.0.0.1",src_port="2",dst_ip="10.0.0.2",dst_port="80",state="active"} 30
    tcp_bytes_transferred_total{src_ip="10.0.0.1",src_port="4",dst_ip="10.0.0.2",dst_port="80",state="active"} 20
    "#);
}

#[test]
fn a_scrape_leaves_out_expired_streams() {
    let mut streams = streams();
    for port in 0..2_000 {
        observe(&mut streams, HERE, &format!("0 > A 1 1 len=1 a={port}"));
    }
    observe(&mut streams, HERE, "301000 > A 1 1 len=1 a=9999");
    assert!(streams.len() > 1, "they have not been removed yet");
    let text = samples(&expose(streams, &origins()), &["tcp_bytes"]);
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn the_bitrate_is_measured_over_at_least_a_second() {
    let mut streams = streams();
    // 500 bytes in the first second, 1000 in the next one, then 1500 within two seconds.
    observe(
        &mut streams,
        HERE,
        "0 > A 0 1 len=500\n 1000 > A 500 1 len=1000\n 1500 > A 1500 1\n 2000 > A 1500 1 len=1500\n 4000 > A 3000 1",
    );
    streams.advance(HERE, at(5_000.0));
    let text = expose(streams, &origins());
    insta::assert_snapshot!(
        samples(&text, &["tcp_bitrate", "tcp_packet", "tcp_interarrival", "tcp_stream_uptime"]),
        @r#"
    tcp_stream_uptime_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 5
    tcp_bitrate_bps{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 6000
    tcp_bitrate_variance{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.2721655269759087
    tcp_packet_rate_pps{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 1
    tcp_packet_size_variance{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.4082482904638631
    tcp_interarrival_variance_seconds{src_ip="10.0.0.1",src_port="40000",dst_ip="10.0.0.2",dst_port="80",state="active"} 0.6123724356957946
    "#
    );
}

#[test]
fn samples_follow_their_family_and_no_series_is_written_twice() {
    let mut streams = streams();
    for port in 0..50 {
        observe(&mut streams, HERE, &format!("0 > A 1 1 a={port}"));
    }
    let text = expose(streams, &origins());
    let (mut families, mut series, mut family) = (HashSet::new(), HashSet::new(), "");
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} is declared twice");
            }
            None if line.starts_with('#') => {}
            None => {
                assert!(line.starts_with(family), "{line} in {family}");
                let (name, _) = line.rsplit_once(' ').unwrap();
                assert!(series.insert(name), "{name} is written twice");
                let labels = name.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
                let names: Vec<_> =
                    labels.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect();
                let unique: HashSet<_> = names.iter().collect();
                assert_eq!(names.len(), unique.len(), "{name} has a label twice");
            }
        }
    }
    assert!(series.len() > 50 * 15, "{} series", series.len());
}
