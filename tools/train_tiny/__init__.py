"""Train the embedded tiny Moshi from nothing: speech synthesisers, a codec, a language model. See README.md here."""
