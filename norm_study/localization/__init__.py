"""The paper's experiments on networks that must tell positions apart."""
