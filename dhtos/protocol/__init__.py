"""The engine without IO: datagrams and time go in, datagrams and events come out."""
