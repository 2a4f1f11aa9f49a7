#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bootstorm_fuzz::dhcp_v6_answer_parse(data));
