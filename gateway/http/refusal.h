/*
 * refusal - what libmicrohttpd refuses by itself is told as a problem, too
 *
 * The library has pages of its own for what it cannot read, and no hook for another. All of them go through one function, whose calls the
 * linker leads to us (cmake/microhttpd.cmake); what it says in its log just before tells the status. Such a request has no id: nobody else
 * gets to see it.
 *
 * Runs on: any loop; the status noted is that thread's.
 */
#pragma once

/* libmicrohttpd is about to answer with this status. */
void refusal_note(unsigned status);
