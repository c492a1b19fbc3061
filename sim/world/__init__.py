"""The world: namespaces, disks, cables, machines. The only place that needs privileges.

A run holds everything in one process tree (`sandbox`). Namespaces are held by file descriptor and by the processes
in them, never by a name in a shared folder, so that the end of the run, by whatever cause, leaves nothing.
"""
