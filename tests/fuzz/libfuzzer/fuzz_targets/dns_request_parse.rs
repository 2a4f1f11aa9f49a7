#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bootstorm_fuzz::dns_request_parse(data));
