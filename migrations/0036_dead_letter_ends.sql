-- What operators have done with dead letters, which stay in their topic. No schema is named: tests and replays run these in schemas of
-- their own.

-- A row a letter that was redriven or dropped. `letter_at_us` is its header `dlq.at_us`: where the topic was made anew, the same place
-- holds another letter.
create table dead_letter_ends (
    partition int not null,
    letter_offset bigint not null,
    letter_at_us bigint not null,
    ended text not null check (ended in ('redriven', 'dropped')),
    ended_at timestamptz not null default now(),
    primary key (partition, letter_offset, letter_at_us)
);
