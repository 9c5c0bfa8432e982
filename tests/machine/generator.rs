//! The generator of the library, which every seeded test draws from.

use crate::common::random::Random;

#[test]
fn the_generator_is_splitmix64() {
    let mut random = Random::new(1_234_567);
    assert_eq!(random.next(), 6_457_827_717_110_365_317);
    assert_eq!(random.next(), 3_203_168_211_198_807_973);
}
