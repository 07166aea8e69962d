#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| group_redis::fuzz::settings(data));
