#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bootstorm_fuzz::manifest_parse(data));
