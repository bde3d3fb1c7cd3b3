"""The shipped artifact from data/ and public corpora: vocabulary, embedding, fit, export."""
