//! A throw-away Redis server for tests.
