"""Peers in turn on the same work: a process for each, which waits while another is measured."""
