package main

func simulate() any { return nil }
