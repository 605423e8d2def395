'''Three users do everything that can be done to a file, in directories and with modes of all kinds; prints how each step ended and what it left.'''
import ctypes, errno, mmap, os, re
GROUP = 4000
USERS = {'a': (2001, 3001, [GROUP]), 'b': (2002, 3002, [GROUP]), 'c': (2003, 3003, [])}
def code(error): return errno.errorcode[error.errno]
class User:
    'A process of a user, which does what it is told.'
    def __init__(self, name):
        uid, gid, groups = USERS[name]
        self.ask, child = os.pipe(), os.pipe()
        self.told = child
        if os.fork() == 0:
            os.close(self.ask[1]); os.close(child[0])
            os.setgroups(groups); os.setgid(gid); os.setuid(uid); os.umask(0o027)
            lines, out = os.fdopen(self.ask[0]), os.fdopen(child[1], 'w')
            for line in lines:
                try: said = eval(line, globals())
                except OSError as error: said = code(error)
                out.write(repr(said) + '\n'); out.flush()
            os._exit(0)
        os.close(self.ask[0]); os.close(child[1])
        self.out, self.input = os.fdopen(self.ask[1], 'w'), os.fdopen(child[0])
    def does(self, step):
        self.out.write(step + '\n'); self.out.flush()
        return eval(self.input.readline())
def put(name, flags, text=b'new\n', mode=0o666):
    fd = os.open(name, flags, mode)
    try: return os.write(fd, text)
    finally: os.close(fd)
def get(name, flags=os.O_RDONLY):
    fd = os.open(name, flags)
    try: return os.read(fd, 100)
    finally: os.close(fd)
def both(name):
    fd = os.open(name, os.O_RDWR)
    try: return os.read(fd, 100), os.write(fd, b'more\n')
    finally: os.close(fd)
def bare(name, flags):
    os.close(os.open(name, flags))
def replace(name):
    put(name + '.mine', os.O_WRONLY | os.O_CREAT, b'mine\n')
    try: os.rename(name + '.mine', name)
    finally:
        if os.path.lexists(name + '.mine'): os.unlink(name + '.mine')
def exchange(name):

    put(name + '.mine', os.O_WRONLY | os.O_CREAT, b'mine\n')
    try:
        if ctypes.CDLL(None, use_errno=True).renameat2(-100, (name + '.mine').encode(), -100, name.encode(), 2):
            raise OSError(ctypes.get_errno(), name)
    finally: os.unlink(name + '.mine')
def access(name): return [os.access(name, how) for how in (os.R_OK, os.W_OK, os.X_OK)]
def link(name):
    os.link(name, name + '.link'); os.unlink(name + '.link')
def mapped(name):
    fd = os.open(name, os.O_RDWR)
    with mmap.mmap(fd, 5) as pages:
        os.close(fd)
        pages[:2] = b'XY'
def held(name, change):
    fd = os.open(name, os.O_WRONLY)
    try: change(fd); return os.write(fd, b'held\n')
    finally: os.close(fd)
O = os
STEPS = {
 'read': 'get(N)', 'write': 'put(N, O.O_WRONLY)', 'read and write': 'both(N)', 'save': 'put(N, O.O_WRONLY|O.O_TRUNC)',
 'append': 'put(N, O.O_WRONLY|O.O_APPEND)', 'truncating reader': 'bare(N, O.O_RDONLY|O.O_TRUNC)', 'only look': 'bare(N, O.O_RDWR)',
 'create over': 'put(N, O.O_WRONLY|O.O_CREAT|O.O_TRUNC)', 'create exclusively': 'put(N, O.O_WRONLY|O.O_CREAT|O.O_EXCL)',
 'noatime': 'get(N, O.O_RDONLY|O.O_NOATIME)', 'truncate': 'os.truncate(N, 2)', 'chmod': 'os.chmod(N, 0o2777)', 'chown': 'os.chown(N, os.getuid(), -1)',
 'chgrp': 'os.chown(N, -1, GROUP)', 'chgrp to own': 'os.chown(N, -1, os.getgid())', 'utime': 'os.utime(N)', 'set times': 'os.utime(N, (1, 1))',
 'setxattr': "os.setxattr(N, 'user.x', b'1')", 'getxattr': "os.getxattr(N, 'user.y')", 'removexattr': "os.removexattr(N, 'user.y')",
 'trusted': "os.setxattr(N, 'trusted.x', b'1')", 'acl': "os.setxattr(N, 'system.posix_acl_access', bytes.fromhex('0200000001000600ffffffff04000600ffffffff20000600ffffffff'))",
 'unlink': 'os.unlink(N)', 'rename away': "os.rename(N, N + '.away')", 'rename over': 'replace(N)', 'exchange': 'exchange(N)', 'link': 'link(N)',
 'access': 'access(N)', 'stat': 'os.stat(N).st_mode', 'fchmod': 'held(N, lambda fd: os.fchmod(fd, 0o600))', 'fchown': 'held(N, lambda fd: os.fchown(fd, -1, GROUP))',
 'map': 'mapped(N)', 'make beside': "put(N + '.new.md', O.O_WRONLY|O.O_CREAT|O.O_EXCL)",
}
def fresh(name, mode):
    for other in [name, name + '.away', name + '.new.md', name + '.mine']:
        if os.path.lexists(other): os.unlink(other)
    put(name, os.O_WRONLY | os.O_CREAT, b'first\nsecond\n')
    os.setxattr(name, 'user.y', b'2')
    os.chown(name, 2001, GROUP); os.chmod(name, mode)
def state(name):
    try: now = os.lstat(name)
    except OSError as error: return code(error)
    return '%o %d %d %r' % (now.st_mode, now.st_uid, now.st_gid, get(name))
users = {name: User(name) for name in USERS}
os.umask(0)
# A default ACL: user 2002 may read and write what is made here, others nothing.
DEFAULT = bytes.fromhex('02000000' '0100' '0600' 'ffffffff' '0200' '0600' 'd2070000' '0400' '0400' 'ffffffff' '1000' '0600' 'ffffffff' '2000' '0000' 'ffffffff')
DIRS = {'team': (0o2775, 0, GROUP), 'sticky': (0o1777, 2002, 0), 'closed': (0o750, 2001, GROUP), 'read-only': (0o555, 2001, GROUP), 'acl': (0o777, 0, 0)}
MODES = [0o640, 0o664, 0o220, 0o6777, 0o006]
for d, (mode, uid, gid) in DIRS.items():
    os.mkdir(d); os.chown(d, uid, gid); os.chmod(d, mode)
    if d == 'acl': os.setxattr(d, 'system.posix_acl_default', DEFAULT)
    for suffix in ('md', 'bin'):
        for permission in MODES:
            name = f'{d}/f.{suffix}'
            for step, told in STEPS.items():
                # What is written through a mapping takes set-id bits away here, as other writes do: SEMANTICS.md, O1.
                if step == 'map' and permission & 0o6000: continue
                for who, user in users.items():
                    fresh(name, permission)
                    said = user.does(re.sub(r'\bN\b', repr(name), told))
                    print(d, suffix, '%o' % permission, step, who, ':', said, ';', state(name), ';', state(name + '.away'), state(name + '.new.md'))
