"""The canary suite: everything is done with marked secrets, and then every place is searched for them.

A case is three lines; `watch` looks at all places, and the first hit ends the test with the canary's name:

    def test_a_rotation_that_fails_shows_nothing(watch: Watch, issuer: FakeIssuer) -> None:
        rotation = watch.look(Rotation(watch.source(issuer), ManualIssuer()))
        watch.fails(TokenError, rotation.run)

`canaries` has the values and their encodings, `objects` what hangs on an object, `reporters` those who take a traceback
with its local variables, `places` the rest of the process and its folder; `test_detection` plants a leak in each.

What is not searched, because it cannot be kept from code of the same process: the inside of functions. A `Secret` keeps
its text in a closure, which `reveal()`, gc and debuggers reach; so the walk goes through attributes, slots, containers
and the local variables of frames, and not through closures. A `Token` has its text in `authorization` and
`access_token`, which are what it is for; it is searched without these two. Objects of boto3 hold
AWS keys in attributes, and are searched only where somebody prints them. Memory, core files and swap are not searched.
"""
