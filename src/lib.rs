//! pulsar-native
