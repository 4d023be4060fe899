"""A model of the cache protocol: tries every order of its steps, with every fault at every moment.

    writers   the steps of a write
    drains    what brings changes by plain SQL to the cache
    readers   the steps of a cached read
    redis     what each command does to the one entry
    faults    crashes, flushes, failovers, lost messages, time that passes
    state     what a state consists of
    worlds    who writes and reads, and which faults there are
    search    reaches every state, and shows the shortest way to a stale read
    many      a model of its own: writes of several rows and entries, on several servers
    counters  a model of its own: write-behind counters, and the runs that add them to a row

What makes the state space smaller, and why nothing is lost by it:

- Readers are alike: states in which two of them have changed places are one. Writers of the same
  kind that stand side by side begin in their order.
- A read that only asks the database is no step: its answer is never stale and changes nothing.
- What can have no effect any more is forgotten (`search.tidy`): entries that no reader can reach,
  because memory only goes on; stores whose lease or fence is gone, because a token and a mark
  never come back; in stamps the writers that look at no stamp any more; markers of incarnations
  that no generation in use names; what a writer that has ended knew.
- Times and marks are numbered anew: only their order, and which are the same, counts.
- A change and what is read behind it are one step: before the COMMIT nobody else sees the change.
- The witness and the look at the watermark behind it are one step: a publish that comes between
  them leaves something that outlives the witness, as one does that comes behind both.
- The marker of a new incarnation and its generation are one step (`State.switched_on`).
- Ten seconds go by only where a fence was touched since they went by last.
- The fences of a batch that is sent later, because they had to be waited for, are one of the orders
  of those that are sent with it.
- A drain must show what was committed by its first SELECT: more than what was when it began.

In the other direction, there are more orders than in the code: fences may look bad without a
reason, a message of an outage may come at any time, entries may expire at once, and the publishes
of one connection come in any order. An error of Redis that changes nothing (a right that its user
lacks, a script that is gone) is an outage whose message never comes. A guard that fails because
somebody watches the table, or because it meets a replica, is one that meets another generation.

`python -m tests.model` searches every world. docs/cache.md says what was found, and what the model
leaves out.
"""
