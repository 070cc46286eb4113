//go:build !linux

package main

import "errors"

var errLinux = errors.New("bench needs Linux")

func connect(string) int { panic(failure{errLinux}) }

func disconnect(int) {}

func (l *leg) drive(func() bool) error { return errLinux }

func (c *crowd) drive() error { return errLinux }
