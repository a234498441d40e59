//! One test for each rule of the analysis.

use super::check;

/// A handshake of 10 ms, after which the sequence numbers are 1001 and 5001.
const HANDSHAKE: &str = "
    0 > S 1000 0 :
    5 < SA 5000 1001 : delay=5
    10 > A 1001 5001 : delay=5
";

#[track_caller]
fn check_established(rest: &str) {
    check(&format!("{HANDSHAKE}{rest}"));
}

#[test]
fn data_and_acknowledgments_have_no_events() {
    check_established(
        "20 > PA 1001 5001 len=100 :
         25 < A 5001 1101 : delay=5
         30 < PA 5001 1101 len=50 :
         31 > FA 1101 5051 : delay=1
         33 < FA 5051 1102 : delay=2
         34 > A 1102 5052 : delay=1",
    );
}

#[test]
fn a_late_copy_is_a_retransmission() {
    check_established(
        "20 > A 1001 5001 len=100 :
         220 > A 1001 5001 len=100 : retransmission
         225 < A 5001 1101 : delay=205",
    );
}

#[test]
fn a_fast_retransmission_follows_duplicate_acks_within_20_ms() {
    let lost = "20 > A 1001 5001 len=100 :
         21 > A 1201 5001 len=100 : gap
         22 < A 5001 1101 : delay=2
         23 < A 5001 1101 : duplicate-ack";
    check_established(&format!(
        "{lost}
         24 < A 5001 1101 : duplicate-ack
         25 > A 1101 5001 len=100 : retransmission fast"
    ));
    // Two duplicate ACKs are enough. With one the time decides whether it is out of order.
    check_established(&format!("{lost}\n 25 > A 1101 5001 len=100 : out-of-order"));
    check_established(&format!("{lost}\n 41 > A 1101 5001 len=100 : retransmission"));
    for (when, events) in [("43.999999", "retransmission fast"), ("44", "retransmission")] {
        check_established(&format!(
            "{lost}
             24 < A 5001 1101 : duplicate-ack
             {when} > A 1101 5001 len=100 : {events}"
        ));
    }
    // Only the segment that the duplicate ACKs ask for.
    check_established(&format!(
        "{lost}
         24 < A 5001 1101 : duplicate-ack
         25 > A 1151 5001 len=50 : out-of-order"
    ));
}

#[test]
fn a_retransmission_of_acknowledged_data_is_spurious() {
    check_established(
        "20 > A 1001 5001 len=100 :
         25 < A 5001 1101 : delay=5
         26 > A 1001 5001 len=100 : retransmission spurious
         27 < A 5001 1101 : duplicate-ack delay=1
         28 > A 1051 5001 len=100 : out-of-order",
    );
}

#[test]
fn segments_are_out_of_order_within_the_initial_rtt() {
    // Without a handshake the limit is 3 ms, exclusive.
    for (when, events) in [("2.999999", "out-of-order"), ("3", "retransmission")] {
        check(&format!(
            "0 > A 1000 1 len=100 :
             0 > A 1200 1 len=100 : gap
             {when} > A 1100 1 len=100 : {events}"
        ));
    }
    // The handshake took 10 ms.
    for (when, events) in [("30.999999", "out-of-order"), ("31", "retransmission")] {
        check_established(&format!(
            "20 > A 1001 5001 len=100 :
             21 > A 1201 5001 len=100 : gap
             {when} > A 1101 5001 len=100 : {events}"
        ));
    }
}

#[test]
fn a_copy_of_the_last_segment_is_not_out_of_order() {
    check(
        "0 > A 1000 1 len=100 :
         1 > A 1100 1 len=100 :
         2 > A 1100 1 len=100 : retransmission
         2 > A 1000 1 len=100 : out-of-order",
    );
}

#[test]
fn each_jump_is_one_gap() {
    check_established(
        "20 > A 1001 5001 len=10 :
         21 > A 9011 5001 len=1 : gap
         22 > A 9012 5001 len=1 :
         23 > FA 9113 5001 : gap
         24 > R 9999 5001 : reset",
    );
}

#[test]
fn an_ack_of_unseen_segments_is_reported_once() {
    check_established(
        "20 < A 5001 1101 : acked-unseen
         21 < A 5001 1201 :
         22 > A 1201 5001 len=100 : gap
         23 < A 5001 1301 : acked-unseen delay=1
         24 > A 1301 5001 len=100 :
         25 < A 5001 1401 : delay=1",
    );
}

#[test]
fn a_retransmission_after_an_ack_of_unseen_segments_is_fast() {
    check(
        "0 > A 1000 5000 :
         1 < A 5000 1000 len=30 :
         2 < A 5030 1010 len=0 : acked-unseen
         3 < A 5000 1000 len=5 : retransmission fast",
    );
    // A duplicate ACK restarts the count.
    check(
        "0 > A 1000 5000 :
         1 < A 5000 1000 len=30 :
         2 < A 5030 1010 len=0 : acked-unseen
         3 > A 1000 5000 : duplicate-ack
         4 < A 5000 1000 len=5 : retransmission",
    );
    // The same after earlier duplicate ACKs.
    check(
        "0 > A 1000 5000 :
         1 > A 1000 5000 : duplicate-ack
         2 < A 5030 1010 len=0 :",
    );
}

#[test]
fn sequence_numbers_wrap_around() {
    check(
        "0 > S 4294967294 0 :
         5 < SA 4294967290 4294967295 : delay=5
         10 > A 4294967295 4294967291 : delay=5
         20 > A 4294967295 4294967291 len=100 :
         25 < A 4294967291 99 : delay=5
         30 < A 4294967291 99 len=10 :
         31 > A 99 5 len=100 : delay=1
         32 > A 4294967295 5 len=100 : retransmission spurious
         35 < A 5 199 : delay=4",
    );
}

#[test]
fn a_keep_alive_is_one_before_the_expected_number() {
    check_established(
        "1000 > A 1000 5001 : keep-alive
         1001 < A 5001 1001 : keep-alive-ack
         2000 > A 1000 5001 len=1 : keep-alive
         2001 < A 5001 1001 : keep-alive-ack delay=1
         2002 < A 5001 1001 : keep-alive-ack
         2003 > A 1001 5001 : duplicate-ack
         2004 < A 5001 1001 : duplicate-ack
         2005 > FA 1000 5001 : retransmission",
    );
}

#[test]
fn each_zero_window_counts() {
    check_established(
        "20 < A 5001 1001 win=0 : zero-window
         21 < A 5001 1001 win=0 : zero-window
         22 < A 5001 1001 len=10 win=0 : zero-window
         23 < RA 5011 1001 win=0 : reset
         24 < FA 5011 1001 win=0 :",
    );
}

#[test]
fn one_byte_into_a_closed_window_is_a_probe() {
    check_established(
        "20 > A 1001 5001 len=100 :
         21 < A 5001 1101 win=0 : zero-window delay=1
         300 > A 1101 5001 len=1 : zero-window-probe
         301 < A 5001 1101 win=0 : zero-window zero-window-probe-ack
         600 > A 1101 5001 len=1 : zero-window-probe
         601 < A 5001 1102 win=50 : acked-unseen delay=301
         602 > A 1102 5001 len=10 : gap",
    );
}

#[test]
fn a_duplicate_ack_changes_nothing() {
    check_established(
        "20 < A 5001 1001 : duplicate-ack
         21 < A 5001 1001 win=101 : window-update
         22 < A 5001 1001 win=101 len=1 :
         23 < A 5002 1001 win=101 : duplicate-ack
         24 < FA 5002 1001 win=101 :
         25 < A 5002 1001 win=101 : keep-alive",
    );
    // The first segment after a new MPTCP subtype is not a duplicate ACK.
    check_established(
        "20 > A 1001 5001 mptcp=4 : duplicate-ack
         21 > A 1001 5001 mptcp=4 :
         22 > A 1001 5001 : duplicate-ack
         23 < A 5001 1001 :
         24 < A 5001 1001 : duplicate-ack",
    );
}

#[test]
fn the_last_byte_of_the_window_fills_it() {
    check_established(
        "20 < A 5001 1001 win=100 : window-update
         21 > A 1001 5001 len=99 :
         22 > A 1100 5001 len=1 : window-full
         23 > FA 1100 5001 len=1 : out-of-order",
    );
    // The scale is unknown without a handshake.
    check("0 < A 5000 1000 win=100 :\n 1 > A 1000 5000 len=100 :");
}

#[test]
fn windows_are_scaled_if_both_syns_offer_it() {
    let with = |offer: &str, answer: &str, rest: &str| {
        check(&format!(
            "0 > S 1000 0 {offer} :
             5 < SA 5000 1001 {answer} : delay=5
             10 > A 1001 5001 : delay=5
             {rest}"
        ));
    };
    // A SYN's window is never scaled.
    with("ws=7", "ws=1", "11 > A 1001 5001 len=1000 : window-full");
    with("ws=7", "ws=1", "11 < A 5001 1001 win=99 : window-update\n 12 > A 1001 5001 len=198 : window-full");
    with("ws=7", "", "11 < A 5001 1001 win=99 : window-update\n 12 > A 1001 5001 len=99 : window-full");
    with("", "ws=1", "11 < A 5001 1001 win=99 : window-update\n 12 > A 1001 5001 len=99 : window-full");
    // A shift count of 15 is treated as 14.
    with("", "", "11 < A 5001 1001 win=1 : window-update\n 12 > A 1001 5001 len=1 : window-full");
    with(
        "ws=0",
        "ws=15",
        "11 < A 5001 1001 win=1 : window-update\n 12 > A 1001 5001 len=16384 : window-full",
    );
}

#[test]
fn a_syn_with_another_sequence_number_reuses_the_port() {
    check_established(
        "20 > A 1001 5001 len=100 :
         30 > S 700 0 : port-reuse
         35 < SA 9000 701 : delay=5
         36 > A 701 9001 : delay=1",
    );
    // The initial number is known from the first segment, or its acknowledgment.
    check("0 > A 1001 5001 :\n 1 > S 1000 0 : retransmission\n 2 < S 5000 0 :\n 3 < S 5001 0 : port-reuse");
    // A different SYN/ACK does not reset the connection, but later SYNs are compared with it.
    check_established("20 < SA 7000 1001 : gap port-reuse\n 21 < S 7000 0 : gap");
}

#[test]
fn syn_and_fin_are_retransmitted() {
    check(
        "0 > S 1000 0 :
         1000 > S 1000 0 : retransmission
         1005 < SA 5000 1001 : delay=1005
         1105 < SA 5000 1001 : retransmission
         1106 > A 1001 5001 : delay=101
         1107 > FA 1001 5001 :
         1407 > FA 1001 5001 : retransmission
         1410 < A 5001 1002 : delay=303",
    );
}

#[test]
fn a_retransmission_may_have_other_boundaries() {
    check_established(
        "20 > A 1001 5001 len=100 :
         220 > A 1051 5001 len=100 : retransmission
         420 > A 1150 5001 len=1 : keep-alive
         421 > A 1150 5001 len=2 :",
    );
}

#[test]
fn an_ack_gives_at_most_one_delay() {
    // A cumulative ACK gives that of the segment that ends there, a partial ACK gives none.
    check_established(
        "20 > A 1001 5001 len=100 :
         21 > A 1101 5001 len=100 :
         22 > A 1201 5001 len=100 :
         25 < A 5001 1201 : delay=4
         26 < A 5001 1250 :
         27 < A 5001 1301 : delay=5",
    );
}

#[test]
fn a_reset_without_ack_acknowledges_nothing() {
    check_established(
        "20 < R 5001 0 win=0 : reset
         21 > A 1001 5001 len=100 :
         40 > A 1001 5001 len=100 : retransmission",
    );
}

#[test]
fn a_syn_may_carry_data() {
    check("0 > S 1000 0 len=10 :\n 5 < SA 5000 1011 : delay=5\n 10 > A 1011 5001 : delay=5");
}

#[test]
fn a_connection_to_itself_is_one_stream() {
    let mut streams = super::streams();
    let described = |text| {
        let mut described = super::Described::new(text);
        if let Some(ip) = &mut described.headers.ip {
            ip.dst = ip.src;
        }
        described
    };
    let both = [described("0 > A 1000 1 len=10 a=80"), described("1 > A 990 1 len=10 a=80")];
    let found = both.map(|segment| super::describe(&streams.observe(super::HERE, &segment.packet())));
    assert_eq!((found, streams.len()), (["".into(), "out-of-order".into()], 1));
}

#[test]
fn times_that_go_back_are_neither_out_of_order_nor_fast() {
    check("10 > A 1000 1 len=100 :\n 9 > A 1200 1 len=100 : gap\n 8 > A 1100 1 len=100 : retransmission");
    check("10 > A 1000 1 len=100 :\n 9 < A 1 1100 : delay=-1");
}
