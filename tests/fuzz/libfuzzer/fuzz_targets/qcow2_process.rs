#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bootstorm_fuzz::qcow2_process(data));
